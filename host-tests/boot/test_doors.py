"""Through both doors into Python: what it is told, and what memory is like there."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile
from fixtures.signing import Signer

from tools.image import Image

pytestmark = pytest.mark.qemu

EXPECTED = {
    "xen": "0",
    "widths": "['0x7788', '0x55667788', '0x1122334455667788']",
    "mem": "0x11223344cdab7788",
    "copied": "0x11223344cdab7788",
    "bit": "(True, False)",
    "overflow": "OverflowError: 0x100000000 is more than 0xffffffff",
    "negative": "OverflowError: no number of 64 bits without sign",
    "wide": "OverflowError: no number of 64 bits without sign",
    "widest": "None",
    "below": str(["ValueError"] * 6),
    "text": "True",
    "wild": "ValueError: 0x2 bytes at 0x1000000000000000: no physical address",
    "hypercall": "OSError: [Errno 19] ENODEV",
    "pool": "MemoryError: no 1000 pages left in the pool",
    "again": "(True, 0)",
    "untaken": "ValueError: no taken pages",
    "recycled": "0x600d",
    "viper": "499500",
    "recursion": "RuntimeError: maximum recursion depth exceeded",
}

# CPU, memory, where the bzImage is loaded.
PLACES = [
    pytest.param("qemu64", "64M", 0x3001000, id="four levels"),
    pytest.param("max,la57=on", "64M", 0x3001000, id="five levels"),
    pytest.param("qemu64", "6G", 0x140003000, id="four levels, above 4 GiB"),
    pytest.param("max,la57=on", "6G", 0x13FFFF000, id="five levels, across a GiB above 4 GiB"),
]


def values(text: str) -> dict[str, str]:
    """The lines of doors/doors.py: names and values."""
    return {line.partition(" ")[0]: line.partition(" ")[2] for line in text.splitlines()}


def test_pvh(doors: Image, boot) -> None:
    found = values(boot(doors.elf, "-append", "some words", "-m", "128M", until="end"))
    region = [hex(0x100000), hex(0x100000 + doors.sizes.init_size)]
    assert found["door"] == "pvh"
    assert found["cmdline"] == "b'some words'"
    assert found["modules"] == "0"
    assert found["region"] == str(region)
    assert 126 << 20 < int(found["ram"]) <= 128 << 20
    assert {name: found[name] for name in EXPECTED} == EXPECTED


def test_pvh_reports_modules(doors: Image, boot) -> None:
    found = values(boot(doors.elf, "-initrd", str(doors.bin), until="end"))
    assert found["modules"] == "1"
    assert found["module"] == "b'HdrS'"


@pytest.mark.parametrize(("cpu", "memory", "address"), PLACES)
def test_bzimage(doors: Image, loader: Path, boot, cpu: str, memory: str, address: int) -> None:
    machine = ["-cpu", cpu, "-m", memory, "-initrd", str(doors.bin)]
    append = ["-append", f"load={address:#x} crash words elfcorehdr=0x1000"]
    found = values(boot(loader, *machine, *append, until="end"))
    assert found["door"] == "bzimage"
    assert found["cmdline"] == "b'crash words elfcorehdr=0x1000'"
    assert found["region"] == str([hex(address), hex(address + doors.sizes.init_size)])
    assert found["module"] == "b'HdrS'"
    assert int(found["ram"]) > 60 << 20
    assert {name: found[name] for name in EXPECTED} == EXPECTED


def test_a_signed_bzimage_clears_the_signature_that_lies_in_its_bss(
    doors: Image, signer: Signer, loader: Path, boot, tmp_path: Path
) -> None:
    """Loaders copy the file to its end, so the signature is where .bss begins."""
    signed = tmp_path / "signed.bin"
    signer.sign(doors.bin, signed)
    assert signed.stat().st_size > doors.sizes.bin
    machine = ["-cpu", "qemu64", "-m", "64M", "-initrd", str(signed)]
    append = ["-append", "load=0x3001000 crash words elfcorehdr=0x1000"]
    found = values(boot(loader, *machine, *append, until="end"))
    assert {name: found[name] for name in EXPECTED} == EXPECTED


def test_without_xen_it_says_so_and_halts(image: Image, boot) -> None:
    text = boot(image.elf, until="pvdump: this machine is not Xen")
    assert "pvdump: trap" not in text


def test_the_16_bit_entry_says_what_to_use(image: Image, boot) -> None:
    boot(image.bin, until="pvdump.bin has a 64-bit entry only")


def test_the_32_bit_entry_says_what_to_use(image: Image, boot, tmp_path: Path) -> None:
    """It is the body's first byte: QEMU goes there when the PVH note says so."""
    with image.elf.open("rb") as stream:
        elf = ELFFile(stream)
        entry = elf.header.e_entry
        note = next(s for s in elf.iter_segments() if s.header.p_type == "PT_NOTE")
        at = note.header.p_offset + 16
    content = bytearray(image.elf.read_bytes())
    assert struct.unpack_from("<Q", content, at) == (entry,)
    struct.pack_into("<Q", content, at, 0x100000)
    (tmp_path / "first.elf").write_bytes(content)
    boot(tmp_path / "first.elf", until="pvdump.bin has a 64-bit entry only")
