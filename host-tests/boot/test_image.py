"""The files: what the loaders will look at in them, and that they come out the same anywhere."""

from __future__ import annotations

import os
import re
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile

from tools import micropython, monocypher, zstd
from tools.image import Image
from tools.imageconfig import ROOT

XEN_ELFNOTE_PHYS32_ENTRY = 18
PF_X, PF_W, PF_R = 1, 2, 4

# Offset, format, value: what kexec_load and kexec_file_load check.
HEADER = [
    (0x1F1, "B", 7),  # setup_sects
    (0x1FE, "H", 0xAA55),  # boot_flag
    (0x202, "4s", b"HdrS"),
    (0x206, "H", 0x020F),  # version
    (0x211, "B", 1),  # loadflags: LOADED_HIGH
    (0x230, "I", 0x1000),  # kernel_alignment
    (0x234, "B", 1),  # relocatable_kernel
    (0x236, "H", 0x23),  # KERNEL_64 | CAN_BE_LOADED_ABOVE_4G | 5LEVEL
    (0x238, "I", 2047),  # cmdline_size
    (0x258, "Q", 0x100000),  # pref_address
]


def field(data: bytes, offset: int, form: str) -> int | bytes:
    (value,) = struct.unpack_from("<" + form, data, offset)
    return value


def loads(path: Path) -> list:
    with path.open("rb") as stream:
        segments = list(ELFFile(stream).iter_segments())
    return [segment.header for segment in segments if segment.header.p_type == "PT_LOAD"]


@pytest.mark.parametrize(("offset", "form", "value"), HEADER)
def test_bzimage_header(image: Image, offset: int, form: str, value: int | bytes) -> None:
    assert field(image.bin.read_bytes(), offset, form) == value


def test_bzimage_header_ends_where_its_jump_says(image: Image) -> None:
    data = image.bin.read_bytes()
    end = 0x202 + data[0x201]
    assert end == 0x26C
    assert data[0x200] == 0xEB


def test_bzimage_carries_the_elf_s_body(image: Image) -> None:
    data = image.bin.read_bytes()
    body = data[4096:]
    assert field(data, 0x1F4, "I") * 16 == len(body)
    elf = image.elf.read_bytes()
    start = min(segment.p_paddr for segment in loads(image.elf))
    for segment in loads(image.elf):
        at = segment.p_paddr - start
        content = elf[segment.p_offset : segment.p_offset + segment.p_filesz]
        assert body[at : at + segment.p_filesz] == content


def test_bzimage_init_size_covers_bss(image: Image) -> None:
    segments = loads(image.elf)
    end = max(segment.p_paddr + segment.p_memsz for segment in segments)
    assert field(image.bin.read_bytes(), 0x260, "I") == end - segments[0].p_paddr


def test_elf_has_pvh_note_with_entry_in_the_first_segment(image: Image) -> None:
    with image.elf.open("rb") as stream:
        elf = ELFFile(stream)
        notes = [
            note
            for segment in elf.iter_segments()
            if segment.header.p_type == "PT_NOTE"
            for note in segment.iter_notes()
        ]
        entry = elf.header.e_entry
    assert len(notes) == 1
    assert notes[0].n_name == "Xen"
    assert notes[0].n_descsz == 8
    first = loads(image.elf)[0]
    assert first.p_paddr <= entry < first.p_paddr + first.p_filesz
    stored = image.elf.read_bytes()[notes[0].n_offset : notes[0].n_offset + 24]
    kind, owner, address = struct.unpack("<8xI4sQ", stored)
    assert (kind, owner, address) == (XEN_ELFNOTE_PHYS32_ENTRY, b"Xen\0", entry)


def test_first_load_segment_is_page_aligned_at_1_mib(image: Image) -> None:
    first = loads(image.elf)[0]
    assert first.p_paddr == 0x100000
    assert first.p_offset % 4096 == 0


def test_no_segment_is_writable_and_executable(image: Image) -> None:
    flags = [segment.p_flags for segment in loads(image.elf)]
    assert flags == [PF_R | PF_X, PF_R, PF_R | PF_W]
    assert all(segment.p_vaddr % 4096 == 0 for segment in loads(image.elf))


def test_no_instruction_touches_an_sse_or_x87_register(image: Image) -> None:
    """The doors leave SSE off, and a trap saves the general registers only."""
    command = ["objdump", "-d", "--no-show-raw-insn", str(image.dbg)]
    listing = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert "<boot_main>:" in listing
    assert re.findall(r".*%(?:[xyz]?mm\d|st\b).*", listing) == []


def test_sizes_are_within_their_bounds(image: Image) -> None:
    assert image.sizes.elf <= 360 << 10
    assert image.sizes.bin <= 360 << 10
    assert image.sizes.init_size <= 7 << 18  # 1.75 MiB


REBUILD = """
import sys
from pathlib import Path
from tools import micropython, monocypher, zstd
micropython.source = lambda progress: Path(sys.argv[1])
zstd.source = lambda progress: Path(sys.argv[2])
monocypher.source = lambda: Path(sys.argv[3])
from tools.image import build
build(Path(sys.argv[4]))
"""


def test_another_checkout_with_another_cache_gives_the_same_bytes(
    image: Image, tmp_path: Path
) -> None:
    clone = tmp_path / "a clone"
    skip = shutil.ignore_patterns("__pycache__")
    for name in ("boot", "drivers", "firmware", "tools"):
        shutil.copytree(ROOT / name, clone / name, ignore=skip)
    for name in ("image.yaml", "requirements.txt"):
        shutil.copy(ROOT / name, clone)
    parts = (micropython, zstd, monocypher)
    for part in parts:
        shutil.copytree(part.source(), tmp_path / part.__name__)
    places = [str(tmp_path / name) for name in (*(part.__name__ for part in parts), "out")]
    command = [sys.executable, "-c", REBUILD, *places]
    environment = {**os.environ, "PVDUMP_CACHE": str(tmp_path / "cache"), "PYTHONPATH": str(clone)}
    subprocess.run(command, cwd=clone, env=environment, check=True)
    assert (tmp_path / "out/pvdump.elf").read_bytes() == image.elf.read_bytes()
    assert (tmp_path / "out/pvdump.bin").read_bytes() == image.bin.read_bytes()


def test_firmware_is_the_same_body_as_elf32_without_notes(image: Image) -> None:
    with image.elf.open("rb") as stream:
        entry = ELFFile(stream).header.e_entry
    with image.fw.open("rb") as stream:
        firmware = ELFFile(stream)
        headers = [segment.header for segment in firmware.iter_segments()]
        contents = [segment.data() for segment in firmware.iter_segments()]
        assert firmware.elfclass == 32
        assert firmware.header.e_entry == entry
    assert [header.p_type for header in headers] == ["PT_LOAD"] * 3
    elf = image.elf.read_bytes()
    for header, content, wide in zip(headers, contents, loads(image.elf), strict=True):
        assert header.p_vaddr == header.p_paddr == wide.p_paddr
        assert (header.p_flags, header.p_memsz) == (wide.p_flags, wide.p_memsz)
        assert content == elf[wide.p_offset : wide.p_offset + wide.p_filesz]
