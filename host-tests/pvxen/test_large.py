"""The image in a region of 4 MiB and RAM of any size: the same dump, which collect takes."""

import re
import struct

import pytest
from fixtures import streamreader
from fixtures.largekernel import PAGE, LargeKernel

from pvdump.dump import streamdump
from pvdump.dump.collect import collect
from pvfw import superblock
from pvfw.errors import TargetRefused
from pvxen.guest import EmbeddedGuest
from pvxen.image import EmbeddedImage
from pvxen.sink import Memory
from tools.image import build
from xenpv import abi

DISK = 64 << 20


@pytest.fixture(scope="module")
def dumped(tmp_path_factory):
    """Gives (LargeKernel, its guest, the disk with its dump) of a guest with some GiB."""
    built = build(tmp_path_factory.mktemp("image"))
    files = built.elf.read_bytes(), built.bin.read_bytes()

    def dump(gib):
        kernel, disk = LargeKernel(gib), Memory(DISK)
        guest = EmbeddedGuest(**kernel.options)
        kernel.leave(guest.machine.ram)
        disk.data[:512] = superblock.Superblock(bytes(range(16)), DISK).encode()
        guest.disk("xvdb", disk)
        image = EmbeddedImage(*files)
        assert image.run(guest) == abi.SHUTDOWN_poweroff, image.text
        return kernel, guest, bytes(disk.data)

    return dump


def frames_of(kdump):
    """The frames that a KDUMP file has, by its second bitmap."""
    with kdump.open("rb") as stream:
        sub, bitmaps = struct.unpack("<iI", stream.read(440)[432:440])
        half = bitmaps // 2 * PAGE
        stream.seek((1 + sub) * PAGE + half)
        bits = stream.read(half)
    found = []
    for run in re.finditer(rb"[^\0]+", bits):
        for at, byte in enumerate(run[0], run.start()):
            found += [8 * at + bit for bit in range(8) if byte >> bit & 1]
    return found


# Unicorn's CPU has no address above 1 TiB, and 1 GiB below is for devices.
@pytest.mark.parametrize("gib", [4, 64, 1023])
def test_the_pages_to_keep_are_dumped_and_collected_and_no_others(dumped, gib, tmp_path):
    kernel, guest, disk = dumped(gib)
    found = streamreader.read(disk)
    assert found.whole
    assert found.unreadable == set()
    assert sorted(found.pages) == kernel.kept
    wrong = [pfn for pfn, page in found.pages.items() if bytes(guest.machine.page(pfn)) != page]
    assert wrong == []
    (tmp_path / "disk").write_bytes(disk)
    assert collect(tmp_path / "disk", tmp_path / "kdump", form="kdump").reason == ""
    assert frames_of(tmp_path / "kdump") == kernel.kept


def test_more_pages_than_a_kdump_file_takes_make_an_elf_file(dumped, tmp_path, monkeypatch):
    kernel, _, disk = dumped(4)
    (tmp_path / "disk").write_bytes(disk)
    monkeypatch.setattr(streamdump, "PAGES_MAX", len(kernel.kept) - 1)
    with pytest.raises(TargetRefused, match="at most 8191 are taken here: use --format elf"):
        collect(tmp_path / "disk", tmp_path / "kdump", form="kdump")
    assert collect(tmp_path / "disk", tmp_path / "elf", form="elf").reason == ""
