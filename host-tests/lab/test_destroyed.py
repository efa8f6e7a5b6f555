"""A guest is destroyed while it dumps; what is on its disk still says why its kernel died."""

import pytest
from fixtures import streamreader
from fixtures.xens import ONE

from lab import linux
from pvdump import cli
from pvdump.dump.info import read_superblock
from pvdump.dump.prepare import prepare
from pvfw import superblock

pytestmark = pytest.mark.xen

LINE = "pvdump.disk=xvdb pvdump.then=poweroff"
MIB = 1 << 20
# What the dump takes, about; it is cut at as many places, of which a short run takes some.
DUMP = 14 * MIB
MOMENTS, FEW = 30, (12,)


def pytest_generate_tests(metafunc):
    moments = range(MOMENTS) if metafunc.config.getoption("all") else FEW
    metafunc.parametrize("moment", moments)


def stored(path):
    return path.stat().st_blocks * 512


def test_a_dump_that_was_cut_is_readable_up_to_there(at_prompt, tmp_path, capsys, moment):
    disk = tmp_path / "target.img"
    prepare(disk, size=64 * MIB)
    domain = at_prompt(*ONE, "hvm")
    domain.attach("xvdb", disk)
    domain.bring("xvdb", {"pvdump.bin": "image-bin"})
    before = stored(disk)
    load = linux.kexec("/pvdump.bin", LINE, file_mode=True)
    domain.run(f"{load} || poweroff -f\n{linux.crash()}\n")
    domain.wait_console("pvdump: why the kernel died")
    domain.wait_until(
        lambda: stored(disk) - before >= moment * DUMP // MOMENTS or domain.ended(),
        "what it writes to its disk",
    )
    domain.destroy()
    # A backend may hold some of its pages for a moment more.
    domain.wait_until(lambda: domain.state() == "gone", "its end")
    block = read_superblock(disk)
    if block.state == superblock.READY:
        assert cli.main(["collect", str(disk), str(tmp_path / "vmcore")]) == 1
        assert "it is ready for one" in capsys.readouterr().err
        return
    found = streamreader.read(disk.read_bytes())
    assert b"Kernel panic - not syncing: sysrq triggered crash" in found.log
    assert cli.main(["collect", "--log", str(disk), str(tmp_path / "log")]) in (0, 3)
    assert (tmp_path / "log").read_bytes() == found.log
    whole = block.state == superblock.COMPLETE
    assert cli.main(["collect", str(disk), str(tmp_path / "vmcore")]) == (0 if whole else 3)
    assert whole or found.size >= block.written
