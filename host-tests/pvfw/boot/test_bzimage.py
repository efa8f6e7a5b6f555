"""bzImages of Debian, and headers that lie."""

import struct

import pytest
from fixtures.bootfiles import linux

from pvfw.boot import bzimage
from pvfw.boot.errors import Damaged, Unsupported


@pytest.fixture(scope="module")
def raw():
    return linux("bookworm").read_bytes()


@pytest.mark.parametrize("suite", ["bullseye", "bookworm", "trixie"])
def test_debian_s_kernels_have_a_64_bit_entry(suite):
    raw = linux(suite).read_bytes()
    found = bzimage.parse(raw[:1024], len(raw))
    assert found.version == 0x20F
    assert raw[found.offset + found.size :].strip(b"\0") == b"" or len(raw) > found.offset
    assert found.address == 0x1000000
    assert found.alignment == 0x200000
    assert found.memory > found.size > 4 << 20
    assert (found.entry, found.high, found.cmdline_max) == (0x200, True, 2047)
    assert found.initrd_max == 0x7FFFFFFF
    assert found.setup[17:21] == b"HdrS"
    # The 64-bit entry is code, behind as many bytes of the 32-bit one.
    assert raw[found.offset : found.offset + 2] != b"\0\0"
    assert raw[found.offset + found.entry] == 0xFC


@pytest.mark.parametrize(
    ("offset", "form", "value", "kind", "why"),
    [
        (0x202, "4s", b"HdrX", Unsupported, "no bzImage: no HdrS"),
        (0x1FE, "<H", 0, Unsupported, "no bzImage: no HdrS"),
        (0x206, "<H", 0x20B, Unsupported, "boot protocol 0x20b, before 2.12"),
        (0x236, "<H", 0, Unsupported, "no 64-bit entry"),
        (0x211, "<B", 0, Unsupported, "no 64-bit entry"),
        (0x201, "<B", 0xFF, Damaged, "setup header ends at 0x301"),
        (0x201, "<B", 0x10, Damaged, "setup header ends at 0x212"),
        (0x1F1, "<B", 0xFF, Damaged, "255 sectors of setup"),
        (0x1F4, "<I", 0xFFFFFFF, Damaged, "says that it has 4294967280 bytes, but there are"),
        (0x1F4, "<I", 0, Damaged, "says that it has 0 bytes"),
        (0x258, "<Q", 0, Damaged, "wants to be at 0x0"),
        (0x258, "<Q", 0x1000001, Damaged, "wants to be at 0x1000001"),
        (0x258, "<Q", 1 << 63, Damaged, "wants to be at 0x8000000000000000"),
        (0x260, "<I", 0xFFFFFFFF, Damaged, "needs 4294967295"),
        (0x260, "<I", 4096, Damaged, "needs 4096"),
        (0x230, "<I", 0x300000, Damaged, "alignment is 0x300000"),
        (0x230, "<I", 1, Damaged, "alignment is 0x1"),
        (0x238, "<I", 0, Damaged, "a command line of 0 bytes"),
    ],
)
def test_a_header_that_lies_is_refused(offset, form, value, kind, why, raw):
    head = bytearray(raw[:1024])
    struct.pack_into(form, head, offset, value)
    with pytest.raises(kind, match=why):
        bzimage.parse(bytes(head), len(raw))


def test_a_kernel_that_cannot_be_moved_has_no_alignment(raw):
    head = bytearray(raw[:1024])
    head[0x234] = 0
    assert bzimage.parse(bytes(head), len(raw)).alignment == 0


@pytest.mark.parametrize("size", [0, 100, 0x267])
def test_a_short_kernel_is_none(size, raw):
    with pytest.raises(Unsupported, match=f"a kernel of {size} bytes"):
        bzimage.parse(raw[:size], size)
