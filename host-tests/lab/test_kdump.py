"""Linux's own crash kernel in the lab, the peer of the benchmarks, writes dumps that are whole."""

import pytest
from fixtures.xens import ONE

from bench.crash import OURS, crash, linux_kdump
from lab import readers
from lab.xen import Xen

pytestmark = pytest.mark.xen

MEMORY = 384  # MiB


def test_both_crash_kernels_write_a_dump_of_the_same_guest(built, tmp_path):
    with Xen(*ONE[0].split()) as xen:
        ours = crash(xen, OURS, "blkback", tmp_path, MEMORY, 4)
        theirs = crash(xen, linux_kdump("l"), "blkback", tmp_path, MEMORY, 128)
    log = readers.dmesg(tmp_path / "disk.kdump", tmp_path / "log")
    assert "Kernel panic - not syncing: sysrq triggered crash" in log
    assert min(ours.cpu, theirs.cpu) > 0
    assert min(ours.dumps[""].pages, theirs.dumps["l"].pages) > 1000
