"""Linux's own crash kernel in the lab, the peer of the benchmarks, writes dumps that are whole."""

import struct

import pytest
from fixtures.xens import ONE

from bench.crash import OURS, crash, linux_kdump
from lab import readers
from lab.xen import Xen

pytestmark = pytest.mark.xen

MEMORY = 384  # MiB
RECORD = struct.Struct(">qq")


def rearranged(path, out):
    """Write the file that makedumpfile's flattened form at the start of a disk stands for."""
    with path.open("rb") as stream, out.open("wb") as file:
        assert stream.read(4096).startswith(b"makedumpfile\0")
        while True:
            at, size = RECORD.unpack(stream.read(RECORD.size))
            if at < 0:
                return
            file.seek(at)
            file.write(stream.read(size))


def test_both_crash_kernels_write_a_dump_of_the_same_guest(built, tmp_path):
    with Xen(*ONE[0].split()) as xen:
        ours = crash(xen, OURS, "blkback", tmp_path, MEMORY, 4)
        theirs = crash(xen, linux_kdump("l"), "blkback", tmp_path, MEMORY, 128)
    rearranged(tmp_path / "disk.img", tmp_path / "vmcore")
    log = readers.dmesg(tmp_path / "vmcore", tmp_path / "log")
    assert "Kernel panic - not syncing: sysrq triggered crash" in log
    assert min(ours.cpu, theirs.cpu) > 0
    # Both leave out the same; what runs meanwhile differs a little.
    assert ours.dumps[""].pages == pytest.approx(theirs.dumps["l"].pages, rel=0.1)
