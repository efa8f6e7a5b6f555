"""pvdump collect --format kdump: a KDUMP file has every page that its target has, and no other.

The reader here shares no code with the writer; it follows makedumpfile's IMPLEMENTATION.
"""

import errno
import io
import os
import struct
import sys
import tracemalloc
from pathlib import Path

import pytest
import zstandard
from fixtures.kdumpreader import INCOMPLETE, ZLIB, ZSTD, Reader
from fixtures.targets import NOTE, PAGE, RANGES, bad_places, make, vmcore

from pvdump import cli
from pvdump.dump import collect as collects
from pvdump.dump import compression, frames
from pvdump.dump import disk as disks
from pvdump.dump import output as outputs
from pvdump.dump.collect import collect
from pvdump.dump.disk import DiskError
from pvdump.dump.kdump import BUFFER, Crash, Kdump
from pvdump.dump.notes import Notes
from pvfw import superblock
from pvfw.errors import DumpError, TargetRefused

DATA = vmcore()


def elf(*loads: tuple[int, bytes] | tuple[int, bytes, int], note: bytes = NOTE) -> bytes:
    """A vmcore of (physical address, bytes, more bytes of memory than that)."""
    at = 64 + 56 * (1 + len(loads))
    head = struct.pack("<IIQQQQQQ", 4, 0, at, 0, 0, len(note), len(note), 0)
    body = note
    for paddr, data, *more in loads:
        memsz = len(data) + sum(more)
        head += struct.pack("<IIQQQQQQ", 1, 7, at + len(body), 0, paddr, len(data), memsz, 0)
        body += data
    ehdr = struct.pack("<4s4B8sHHIQQQI", b"\x7fELF", 2, 1, 1, 0, bytes(8), 4, 62, 1, 0, 64, 0, 0)
    return ehdr + struct.pack("<6H", 64, 56, 1 + len(loads), 0, 0, 0) + head + body


def expected(data: bytes = DATA) -> dict[int, bytes]:
    """The pages of the fixture's vmcore."""
    pages, at = {}, PAGE
    for paddr, size in RANGES:
        for i in range(size // PAGE):
            pages[paddr // PAGE + i] = data[at + i * PAGE :][:PAGE]
        at += size
    return pages


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "dump"


def kdump(disk: Path, out: Path, how: str = "zlib", **more: bool) -> collects.Collected:
    return collect(disk, out, form="kdump", compress=how, **more)


def of(path: Path, data: bytes, out: Path) -> Reader:
    """The KDUMP file of a target that holds a whole vmcore."""
    make(path, superblock.COMPLETE, data)
    kdump(path, out)
    return Reader(out.read_bytes())


@pytest.mark.parametrize(("how", "flag"), [("zstd", ZSTD), ("zlib", ZLIB), ("none", 0)])
def test_every_page_is_in_the_file(disk: Path, out: Path, how: str, flag: int) -> None:
    done = kdump(disk, out, how)
    assert (done.reason, done.missing, done.unreadable, done.unnoted) == ("", 0, 0, "")
    made = Reader(out.read_bytes())
    assert made.pages == expected()
    assert made.ram == sorted(expected())
    assert made.max_mapnr == max(expected()) + 1
    assert made.status == flag
    assert {made.flags[pfn] for pfn, page in made.pages.items() if any(page)} == {flag}


def test_headers_tell_of_the_crash(tmp_path: Path, out: Path) -> None:
    cpu = struct.pack("<III8s336s", 5, 336, 1, b"CORE", bytes(336))
    text = b"OSRELEASE=6.1.0-x\nNUMBER(phys_base)=-4096\nCRASHTIME=1795841788\n"
    info = struct.pack("<III12s", 11, len(text), 0, b"VMCOREINFO") + text + bytes(-len(text) % 4)
    made = of(tmp_path / "disk", elf((0, bytes(PAGE)), note=cpu + cpu + info), out)
    assert made.notes == cpu + cpu + info
    assert made.vmcoreinfo == text
    assert (made.uts[0], made.uts[2], made.uts[4]) == ("Linux", "6.1.0-x", "x86_64")
    assert (made.phys_base, made.time, made.cpu, made.cpus) == (-4096, 1795841788, 1, 2)


def test_what_the_notes_do_not_tell_is_the_superblock_s(tmp_path: Path, out: Path) -> None:
    made = of(tmp_path / "disk", elf((0, bytes(PAGE)), note=b"\xff" * 64), out)
    assert (made.uts[2], made.time, made.cpus) == ("6.1.0-test", 1_700_000_000, 1)
    assert made.vmcoreinfo == b""


def test_no_name_that_libkdumpfile_wants_is_empty(disk: Path, out: Path) -> None:
    with disk.open("r+b") as stream:
        stream.write(bytes(512))
    kdump(disk, out, salvage=True)
    assert all(Reader(out.read_bytes()).uts[i] for i in (0, 2, 3, 4))


def test_pages_of_zeros_share_one_place(disk: Path, out: Path) -> None:
    kdump(disk, out)
    made = Reader(out.read_bytes())
    assert len({made.places[pfn] for pfn, page in made.pages.items() if not any(page)}) == 1


def test_pages_that_do_not_shrink_are_stored_as_they_are(tmp_path: Path, out: Path) -> None:
    noise = os.urandom(PAGE)
    made = of(tmp_path / "disk", elf((0, noise)), out)
    assert (made.pages, made.flags) == ({0: noise}, {0: 0})


def test_dump_is_for_its_owner_alone_and_noted(disk: Path, out: Path) -> None:
    kdump(disk, out)
    assert out.stat().st_mode & 0o777 == 0o600
    assert superblock.decode(disk.read_bytes()).collected > 0


# Segments that are no whole pages, overlap, or have more memory than bytes.


def test_page_at_the_edge_of_memory_is_filled_with_zeros(tmp_path: Path, out: Path) -> None:
    made = of(tmp_path / "disk", elf((PAGE + 16, b"\1" * (2 * PAGE - 32))), out)
    some = b"\1" * (PAGE - 16)
    assert made.pages == {1: some.rjust(PAGE, b"\0"), 2: some.ljust(PAGE, b"\0")}


def test_page_in_two_segments_is_put_together(tmp_path: Path, out: Path) -> None:
    made = of(tmp_path / "disk", elf((3000, b"\2" * (PAGE - 3000)), (0, b"\1" * 3000)), out)
    assert made.pages == {0: b"\1" * 3000 + b"\2" * (PAGE - 3000)}


def test_page_in_two_segments_is_stored_once(tmp_path: Path, out: Path) -> None:
    made = of(tmp_path / "disk", elf((0, b"\1" * 3 * PAGE), (PAGE, b"\1" * PAGE)), out)
    assert made.pages == dict.fromkeys(range(3), b"\1" * PAGE)


def test_memory_without_bytes_is_ram_that_is_left_out(tmp_path: Path, out: Path) -> None:
    made = of(tmp_path / "disk", elf((0, b"\1" * (PAGE + 100), 3 * PAGE)), out)
    assert (made.ram, list(made.pages)) == ([0, 1, 2, 3, 4], [0])


def test_page_of_two_segments_one_of_which_is_missing_is_left_out(
    tmp_path: Path, out: Path
) -> None:
    made = of(tmp_path / "disk", elf((0, b"\1" * 1000), (3000, b"", PAGE)), out)
    assert (made.ram, made.pages) == ([0, 1], {})


# Dumps that are not all there.


@pytest.mark.parametrize("written", [2 * PAGE, 6 * PAGE, 100 * PAGE + 7, len(DATA) - PAGE])
def test_partial_dump_has_the_whole_pages_and_is_marked(
    tmp_path: Path, out: Path, written: int
) -> None:
    make(tmp_path / "disk", superblock.PARTIAL, DATA, written)
    done = kdump(tmp_path / "disk", out)
    assert (done.size, done.missing, done.marked) == (written, len(DATA) - written, True)
    made = Reader(out.read_bytes())
    assert made.ram == sorted(expected())
    whole = expected()
    assert made.pages == {pfn: whole[pfn] for pfn in sorted(whole)[: written // PAGE - 1]}
    assert made.status & INCOMPLETE


def test_unreadable_page_is_left_out_and_costs_no_other(
    disk: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pfns = [0x100 + 50, 0x100 + 51, 0x100 + 400]
    places = [superblock.DATA_OFFSET + (6 + pfn - 0x100) * PAGE + 512 for pfn in pfns]
    bad = bad_places(*((place, place + 1) for place in places))
    monkeypatch.setattr(disks.os, "pread", bad)
    done = kdump(disk, out)
    made = Reader(out.read_bytes())
    assert made.pages == {pfn: page for pfn, page in expected().items() if pfn not in pfns}
    assert made.ram == sorted(expected())
    assert made.status & INCOMPLETE
    assert (done.unreadable, done.marked) == (3 * PAGE, True)
    assert "12288 bytes of the disk could not be read" in done.reason
    assert "the first for the page at 0x132000 of RAM" in done.reason
    assert superblock.decode(disk.read_bytes()).collected == 0


def test_unreadable_notes_cost_no_page(
    tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = elf((0, b"\1" * PAGE), note=NOTE.ljust(3 * PAGE, b"\0"))
    make(tmp_path / "disk", superblock.COMPLETE, data)
    place = superblock.DATA_OFFSET + PAGE
    monkeypatch.setattr(disks.os, "pread", bad_places((place, place + 1)))
    assert "in the notes" in kdump(tmp_path / "disk", out).reason
    made = Reader(out.read_bytes())
    assert made.pages == {0: b"\1" * PAGE}
    assert made.status & INCOMPLETE
    assert made.vmcoreinfo == b"OSRELEASE=6\n"


def test_dump_that_is_replaced_meanwhile_is_refused(disk: Path, out: Path) -> None:
    class Again:
        def expect(self, total: float) -> None:
            pass

        def advance(self, amount: float) -> None:
            block = superblock.decode(disk.read_bytes())
            block.started += 60
            with disk.open("r+b") as stream:
                stream.write(block.encode())

    with pytest.raises(DiskError, match="changed while it was copied"):
        collect(disk, out, Again(), form="kdump", compress="none")
    assert [path.name for path in out.parent.iterdir()] == ["disk"]


def test_full_file_system_leaves_no_file(
    disk: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(fd: int, data: bytes, offset: int) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(outputs.os, "pwrite", full)
    with pytest.raises(DiskError, match="No space left on device"):
        kdump(disk, out)
    assert [path.name for path in out.parent.iterdir()] == ["disk"]


# Headers of a hostile guest.


@pytest.mark.parametrize(
    ("load", "words"),
    [
        ((2**64 - PAGE, bytes(PAGE)), "names memory up to byte 0x10000000000000000"),
        ((frames.PADDR_MAX - PAGE + 1, bytes(PAGE)), "names memory up to byte 0x100000000001"),
        ((0, bytes(PAGE), frames.PADDR_MAX), "names memory up to byte 0x100000001000"),
    ],
)
def test_memory_that_no_reader_can_hold_is_refused(
    tmp_path: Path, out: Path, load: tuple[int, bytes], words: str
) -> None:
    make(tmp_path / "disk", superblock.COMPLETE, elf(load))
    with pytest.raises(TargetRefused, match=f"header 1 {words}.*`--format elf`"):
        kdump(tmp_path / "disk", out)
    assert not out.exists()


def test_bytes_that_stand_for_more_memory_than_there_is_are_refused(
    tmp_path: Path, out: Path
) -> None:
    step = 4 << 20
    data = bytearray(elf(*((i * step, b"", PAGE) for i in range(100)), (100 * step, bytes(PAGE))))
    headers = [64 + 56 * (1 + i) for i in range(101)]
    for at in headers:
        data[at + 8 : at + 16] = data[headers[-1] + 8 : headers[-1] + 16]  # offset
        data[at + 32 : at + 40] = data[headers[-1] + 32 : headers[-1] + 40]  # bytes
    make(tmp_path / "disk", superblock.COMPLETE, bytes(data))
    with pytest.raises(TargetRefused, match=r"name \d+ bytes of memory, the dump has"):
        kdump(tmp_path / "disk", out)


def test_notes_that_do_not_fit_into_memory_are_refused(tmp_path: Path, out: Path) -> None:
    make(tmp_path / "disk", superblock.COMPLETE, elf(note=bytes((4 << 20) + 1)))
    with pytest.raises(TargetRefused, match="notes have more than 4194304 bytes"):
        kdump(tmp_path / "disk", out)


@pytest.mark.parametrize("size", [1 << 20, frames.PADDR_MAX - PAGE])
def test_memory_that_collect_needs_does_not_grow_with_addresses(
    tmp_path: Path, out: Path, size: int
) -> None:
    make(tmp_path / "disk", superblock.COMPLETE, elf((0, b"\1" * PAGE), (size, b"\2" * PAGE)))
    tracemalloc.start()
    try:
        kdump(tmp_path / "disk", out)
        assert tracemalloc.get_traced_memory()[1] < 8 * BUFFER
    finally:
        tracemalloc.stop()
    assert out.stat().st_blocks < 1 << 10


# The writer alone.


class Memory:
    """An output in memory that takes each byte once."""

    def __init__(self) -> None:
        self.pieces: dict[int, bytes] = {}

    def put(self, offset: int, data: bytes) -> None:
        if data:
            self.pieces[offset] = bytes(data)

    def read(self) -> Reader:
        whole = bytearray(max(at + len(data) for at, data in self.pieces.items()))
        end = 0
        for at, data in sorted(self.pieces.items()):
            assert at >= end
            whole[at : at + len(data)] = data
            end = at + len(data)
        return Reader(bytes(whole))


def written(pages: list[tuple[int, int]]) -> tuple[Memory, Kdump]:
    memory = Memory()
    crash = Crash(Notes(b""), "6", 0, 0)
    return memory, Kdump(memory, crash, [(0, 100_000)], pages, compression.find("zlib"))


def test_pages_may_come_in_any_order_and_packed() -> None:
    memory, file = written([(3, 6), (7, 9), (70_000, 70_001)])
    packed = zstandard.compress(b"\4" * PAGE)
    file.stored(70_000, packed, ZSTD)
    file.raw(7, b"\7" * PAGE + b"\x08" * PAGE)
    file.zeros(4, 2)
    file.raw(3, b"\3" * PAGE)
    file.finish(incomplete=False)
    made = memory.read()
    page = {3: b"\3", 4: b"\0", 5: b"\0", 7: b"\7", 8: b"\x08", 70_000: b"\4"}
    assert made.pages == {pfn: byte * PAGE for pfn, byte in page.items()}
    assert made.flags[70_000] == ZSTD
    assert not made.status & INCOMPLETE


@pytest.mark.parametrize("given", [[], [3], [20], [4, 19], [5, 6, 10, 11, 15], [*range(3, 12), 15]])
def test_pages_that_do_not_come_are_left_out_and_the_file_marked(given: list[int]) -> None:
    memory, file = written([(3, 12), (15, 21)])
    for pfn in given:
        file.raw(pfn, bytes([pfn]) * PAGE)
    assert file.left_out == 15 - len(given)
    file.finish(incomplete=False)
    made = memory.read()
    assert made.pages == {pfn: bytes([pfn]) * PAGE for pfn in given}
    assert made.status & INCOMPLETE


# The command line.


def test_standard_output_gets_the_flattened_form(
    disk: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with out.open("wb") as stream, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", stream)
        done = collect(disk, None, form="kdump", compress="zlib")
    assert "standard output" in done.unnoted
    stream = io.BytesIO(out.read_bytes())
    start = stream.read(4096)
    assert start[:32] == b"makedumpfile\0\0\0\0" + struct.pack(">QQ", 1, 1)
    memory = Memory()
    while (record := struct.unpack(">qq", stream.read(16))) != (-1, -1):
        memory.put(record[0], stream.read(record[1]))
    assert not stream.read()
    assert memory.read().pages == expected()


@pytest.mark.parametrize(
    ("words", "flag"),
    [("--format kdump", ZSTD), ("--format kdump --compress zlib", ZLIB)],
)
def test_command_line_names_the_compression(
    disk: Path, out: Path, capsys: pytest.CaptureFixture[str], words: str, flag: int
) -> None:
    assert cli.main(["collect", *words.split(), str(disk), str(out)]) == 0
    assert Reader(out.read_bytes()).status == flag
    assert f"KDUMP, compression: {('zlib', 'zstd')[flag == ZSTD]}" in capsys.readouterr().out


def test_compression_of_an_elf_file_is_wrong_usage(
    disk: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["collect", "--format", "elf", "--compress", "zlib", str(disk), str(out)]) == 2
    assert "--compress is for --format kdump" in capsys.readouterr().err
    assert not out.exists()


def hide(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    for name in names:
        monkeypatch.setitem(sys.modules, name, None)


def test_without_a_zstd_zlib_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    hide(monkeypatch, "zstandard", "compression.zstd")
    assert compression.find("").name == "zlib"


def test_without_a_zstd_the_package_and_the_other_way_are_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hide(monkeypatch, "zstandard", "compression.zstd")
    with pytest.raises(DumpError, match="python3-zstandard, or use --compress zlib"):
        compression.find("zstd")
