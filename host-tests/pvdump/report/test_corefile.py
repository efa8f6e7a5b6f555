"""The reader of vmcores: the pages of both formats, and one line on what is none."""

import random
import struct
from pathlib import Path

import pytest
from fixtures.targets import PAGE, RANGES, make, vmcore

from pvdump.dump.collect import collect
from pvdump.report.corefile import CoreFile
from pvfw import superblock
from pvfw.errors import CoreError, DumpError

DATA = vmcore()
FORMS = [("elf", "none"), ("kdump", "none"), ("kdump", "zlib"), ("kdump", "zstd")]
forms = pytest.mark.parametrize(("form", "compress"), FORMS)


def core(folder: Path, form: str = "kdump", compress: str = "zlib", data: bytes = DATA) -> Path:
    make(folder / "disk", superblock.COMPLETE, data)
    collect(folder / "disk", folder / "vmcore", form=form, compress=compress)
    return folder / "vmcore"


@forms
def test_all_memory_of_a_dump_is_read(tmp_path: Path, form: str, compress: str) -> None:
    with CoreFile(core(tmp_path, form, compress)) as file:
        at = PAGE
        for paddr, size in RANGES:
            assert file.read(paddr, size) == DATA[at : at + size]
            assert file.read(paddr + 4090, 12) == DATA[at + 4090 : at + 4102]
            at += size


@forms
def test_memory_that_is_not_there_is_an_error(tmp_path: Path, form: str, compress: str) -> None:
    with CoreFile(core(tmp_path, form, compress)) as file:
        for paddr in (0, RANGES[0][0] + RANGES[0][1], 1 << 40, (1 << 64) - PAGE):
            with pytest.raises(CoreError, match=f"{paddr:#x} is not in the dump"):
                file.read(paddr, 8)


@forms
def test_the_kernel_s_own_description_is_read(tmp_path: Path, form: str, compress: str) -> None:
    with CoreFile(core(tmp_path, form, compress)) as file:
        assert file.notes.text("OSRELEASE") == b"6"


def test_registers_are_those_of_the_notes(tmp_path: Path) -> None:
    values = struct.pack("<27Q", *range(27))
    status = bytes(32) + struct.pack("<I", 98) + bytes(76) + values + bytes(8)
    note = struct.pack("<III", 5, 336, 1) + b"CORE\0\0\0\0" + status
    phdr = struct.pack("<IIQQQQQQ", 4, 0, 120, 0, 0, len(note), len(note), 0)
    (tmp_path / "core").write_bytes(
        DATA[:54] + struct.pack("<HH", 56, 1) + DATA[58:64] + phdr + note
    )
    with CoreFile(tmp_path / "core") as file:
        (found,) = file.registers()
    assert (found.pid, found.values["r15"], found.values["ip"], found.values["gs"]) == (
        98,
        0,
        16,
        26,
    )


@pytest.mark.parametrize(
    ("data", "line"),
    [
        (b"", "no vmcore: it begins with nothing"),
        (b"text\n", "no vmcore: it begins 74 65 78 74 0a"),
        (b"makedumpfile\0\0\0\0", "`makedumpfile -R NEW <"),
        (b"age-encryption.org/v1\n", "`pvdump collect --identity KEY"),
        (superblock.MAGIC, "`pvdump collect"),
        (b"\x7fELF", "no vmcore of x86-64"),
        (b"KDUMP   ", "a KDUMP file of version 0"),
        (DATA[:100], "it has no whole program headers"),
    ],
)
def test_another_file_is_refused_in_one_line(tmp_path: Path, data: bytes, line: str) -> None:
    (tmp_path / "file").write_bytes(data)
    with pytest.raises(DumpError) as error:
        CoreFile(tmp_path / "file")
    assert line in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("form", ["elf", "kdump"])
@pytest.mark.parametrize("seed", range(3))
def test_damage_is_an_error_and_nothing_else(tmp_path: Path, form: str, seed: int) -> None:
    choice = random.Random(seed)
    whole = core(tmp_path, form).read_bytes()
    for _ in range(30):
        raw = bytearray(whole[: choice.choice([len(whole), choice.randrange(len(whole))])])
        for _ in range(choice.randrange(8)):
            at = choice.randrange(min(len(raw), 6 * PAGE) or 1)
            raw[at : at + 1] = bytes([choice.randrange(256)])
        (tmp_path / "damaged").write_bytes(raw)
        try:
            with CoreFile(tmp_path / "damaged") as file:
                for paddr, size in RANGES:
                    file.read(paddr, size)
        except DumpError:
            pass
