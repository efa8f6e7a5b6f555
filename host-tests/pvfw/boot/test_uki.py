"""Unified kernel images as ukify makes them of Debian's kernel, and PE programs that lie."""

import random
import struct

import pytest
from fixtures.bootdisks import MIB, fat, gpt, run, volumes
from fixtures.bootfiles import linux, uki

import hw
from pvfw.boot import bzimage, sources
from pvfw.boot.load import load, pages
from pvfw.boot.volumes import ESP
from pvxen.machine import Machine

RELEASE = """PRETTY_NAME="Debian GNU/Linux 13 (trixie)"
ID=debian
VERSION_ID='13'
"""
INITRD = random.Random(5).randbytes(1_300_001)


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    folder = tmp_path_factory.mktemp("uki")
    (folder / "initrd").write_bytes(INITRD)
    (folder / "os-release").write_text(RELEASE)
    words = (f"--initrd={folder / 'initrd'}", f"--os-release=@{folder / 'os-release'}")
    return uki(folder, linux("trixie"), *words, "--cmdline=root=/dev/xvda2 ro quiet")


def look(folder, files):
    disk = gpt(folder, [(ESP[0], fat(folder, files, "-F", "32", size=64 * MIB))])
    found, notes = volumes(disk)
    return run(sources.look(found, notes)), notes.lines


def test_kernel_initrd_and_command_line_are_the_sections(image, tmp_path):
    hw.attach(Machine(64 * MIB))
    files = {"EFI/Linux/debian-1.efi": image, "EFI/Linux/debian-2+3-0.efi": b"MZ", "EFI/x.efi": b""}
    menu, notes = look(tmp_path, files)
    (entry,) = menu.entries
    assert (entry.name, entry.id) == ("Debian GNU/Linux 13 (trixie)", "debian-1")
    assert entry.options == b"root=/dev/xvda2 ro quiet"
    assert notes == ["UKI xvda1:/EFI/Linux/debian-2+3-0.efi passed over: it is no PE program"]
    kernel = linux("trixie").read_bytes()
    assert loaded(entry.kernel) == kernel
    assert [loaded(place) for place in entry.initrds] == [INITRD]
    assert run(bzimage.read(entry.kernel)).size == bzimage.parse(kernel[:1024], len(kernel)).size


def loaded(place):
    """Read a place into the memory that load() asks for, and no byte further."""
    file, offset, size = run(place.open())
    at = 0x1800000
    room = pages(offset, size) * 4096
    hw.mem(at + room, 4096)[:] = b"\xa5" * 4096
    assert run(load(file, at, offset, size)) == size
    assert bytes(hw.mem(at + room, 4096)) == b"\xa5" * 4096
    return bytes(hw.mem(at, size))


def program(*sections, machine=0x8664, count=None, at=64):
    """Return a PE program. sections: (name, size, raw size, offset, content)."""
    head = bytearray(b"MZ".ljust(at, b"\0"))
    struct.pack_into("<I", head, 60, at)
    head += b"PE\0\0" + struct.pack("<HH12xHH", machine, count or len(sections), 0, 0)
    for name, size, raw_size, offset, _ in sections:
        head += struct.pack("<8sIIII16x", name, size, 0, raw_size, offset)
    head = head.ljust(4096, b"\0")
    for *_, offset, content in sections:
        head[offset : offset + len(content)] = content
    return bytes(head)


GOOD = (b".linux", 100, 512, 1024, b"kernel")


@pytest.mark.usefixtures("machine")
def test_the_first_profile_and_the_first_of_a_name_count(tmp_path):
    sections = (
        *((b".cmdline", 1, 512, 512, b"a"), (b".cmdline", 1, 512, 640, b"b"), GOOD),
        *((b".profile", 1, 1, 700, b"p"), (b".cmdline", 1, 512, 768, b"c")),
        *((b".profile", 1, 1, 710, b"q"), (b".cmdline", 1, 512, 896, b"d")),
    )
    menu, _ = look(tmp_path, {"EFI/Linux/x.efi": program(*sections)})
    assert [(e.options, e.kernel.offset, e.kernel.size) for e in menu.entries] == [
        (b"c", 1024, 100)
    ]


@pytest.mark.usefixtures("machine")
@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (b"", "it is no PE program"),
        (b"MZ" + bytes(58) + b"\xff\xff\xff\x7f" + bytes(100), "its PE header is at 2147483647"),
        (program(GOOD)[:80], "it is no PE program"),
        (program(GOOD, machine=0xAA64), "it is for machine 0xaa64, not x86-64"),
        (program(GOOD, count=97), "97 sections, at most 96"),
        (program(GOOD)[:100], "its sections are behind its end"),
        (program((b".linux", 100, 512, 4000, b"")), "section .linux is behind its end"),
        (program((b".linux", 0, 0, 0, b"")), "it has no section .linux"),
        (
            program(GOOD, (b".cmdline", 4097, 4097, 1, b"")).ljust(9000, b"x"),
            "a section of 4097 bytes, at most 4096",
        ),
    ],
)
def test_a_program_that_lies_is_passed_over(raw, why, tmp_path):
    menu, notes = look(tmp_path, {"EFI/Linux/x.efi": raw})
    assert menu.entries == []
    assert notes == [f"UKI xvda1:/EFI/Linux/x.efi passed over: {why}"]
