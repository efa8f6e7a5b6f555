"""collect --format elf DISK -: the same bytes as in a file, in order, with little memory."""

import io
import os
import random
import tracemalloc

import pytest
from elftools.elf.elffile import ELFFile
from fixtures.cutcrash import CutCrash, tell
from fixtures.hostilestream import Target, memory, table, zstd
from fixtures.streamreader import PAGES
from fixtures.targets import PAGE

from pvdump.dump import inorder, streamdump
from pvdump.dump.output import OutputStream

ELF = ("collect", "--format", "elf", "DISK")
NOISE = [random.Random(number).randbytes(PAGE) for number in range(4)]


class Kept(OutputStream):
    """Standard output that keeps what it is given."""

    def __init__(self):
        self.data = bytearray()

    def write(self, data):
        self.data += data


@pytest.fixture
def sent(monkeypatch):
    """Standard output."""
    kept = Kept()
    monkeypatch.setattr(streamdump, "stdout", lambda text=False: kept)
    return kept


def both(folder, sent):
    """Return what a file has and what standard output was given, as (file, bytes, exit code)."""
    file = tell(folder, *ELF, "OUT")
    sent.data.clear()
    told = tell(folder, *ELF, "-")
    assert told.code == file.code
    return file.file, bytes(sent.data), told.code


@pytest.mark.parametrize("compress", ["zstd", "none"])
def test_standard_output_has_the_bytes_that_a_file_has(compress, sent, tmp_path):
    crash = CutCrash(1, cmdline=f"pvdump.compress={compress}").by_firmware()
    (tmp_path / "disk").write_bytes(crash.disk.data)
    file, data, code = both(tmp_path, sent)
    assert (data, code) == (file, 0)
    pages = crash.stream().pages
    for segment in ELFFile(io.BytesIO(data)).iter_segments("PT_LOAD"):
        first = segment["p_paddr"] // PAGE
        for number in range(segment["p_filesz"] // PAGE):
            assert segment.data()[number * PAGE :][:PAGE] == pages[first + number]


@pytest.mark.parametrize("seed", range(20))
def test_pages_in_any_order_are_put_in_order(seed, sent, tmp_path):
    choice = random.Random(seed)
    ranges, pages, first = [], [], 1
    for _ in range(choice.randint(1, 6)):
        count = choice.randint(1, 300)
        ranges.append((first * PAGE + choice.choice((0, 512)), count * PAGE - 1024, 0))
        pages += [pfn for pfn in range(first, first + count) if choice.random() < 0.7]
        first += count + choice.choice((0, 1, 600))
    choice.shuffle(pages)
    entries = [
        (pfn, choice.choice((1, NOISE[pfn % 4], zstd(bytes([pfn & 255]) * PAGE)))) for pfn in pages
    ]
    cut = choice.randint(1, 40)
    target = Target.sound(*(table(*entries[at : at + cut]) for at in range(0, len(entries), cut)))
    target.chunks[1] = memory(*ranges)
    (tmp_path / "disk").write_bytes(target.encode())
    file, data, code = both(tmp_path, sent)
    assert (data, code) == (file, 0)


def test_a_partial_dump_is_marked_in_its_first_bytes(sent, tmp_path):
    target = Target.sound()
    (tmp_path / "disk").write_bytes(target.encode(["none"]))
    file, data, code = both(tmp_path, sent)
    assert (data, code) == (file, 3)
    assert ELFFile(io.BytesIO(data)).header["e_flags"] & 1


def test_a_damaged_chunk_is_zeros_and_told_before_the_first_byte(sent, tmp_path):
    crash = CutCrash(1).by_firmware()
    data = bytearray(crash.disk.data)
    begin = (1 << 20) + next(at for at, kind in crash.stream().chunks if kind == PAGES)
    data[begin + 100] ^= 1
    (tmp_path / "disk").write_bytes(data)
    file, data, code = both(tmp_path, sent)
    assert (data, code) == (file, 3)
    assert ELFFile(io.BytesIO(data)).header["e_flags"] & 1


def test_a_page_that_cannot_be_unpacked_is_told_though_the_header_is_out(sent, tmp_path):
    (tmp_path / "disk").write_bytes(Target.sound(table((1, b"no zstd"), (2, 62))).encode())
    told = tell(tmp_path, *ELF, "-")
    assert told.code == 3
    assert "the header could not be marked incomplete" in told.error
    assert "the page of frame 0x1" in told.error


def test_a_chunk_that_changes_between_the_passes_is_told(sent, tmp_path, monkeypatch):
    (tmp_path / "disk").write_bytes(Target.sound().encode())
    read = inorder.InOrder.read

    def changed(self, ram):
        header = next(
            at for at in range(0, 1 << 20, PAGE) if self._stream.header(at)[0].kind == PAGES
        )
        with (tmp_path / "disk").open("r+b") as file:
            file.seek((1 << 20) + header + 60)
            file.write(b"changed")
        yield from read(self, ram)

    monkeypatch.setattr(inorder.InOrder, "read", changed)
    told = tell(tmp_path, *ELF, "-")
    assert told.code == 3
    assert "changed while they were read: its CRC is wrong" in told.error


def scattered(chunks, size):
    """A target whose frames are, in order, in one chunk after the other, again and again."""
    data = NOISE[0][:8]
    tables = [
        table(*((1 + number + chunks * turn, data) for turn in range(size)))
        for number in range(chunks)
    ]
    target = Target.sound(*tables)
    target.chunks[1] = memory((PAGE, chunks * size * PAGE, 0))
    return target


def test_chunks_are_read_once_however_their_pages_alternate(sent, tmp_path, monkeypatch):
    (tmp_path / "disk").write_bytes(scattered(16, 100).encode())
    reads = []
    pread = os.pread
    monkeypatch.setattr(os, "pread", lambda *args: reads.append(args) or pread(*args))
    tell(tmp_path, *ELF, "-")
    # Of each chunk header and rest: for what comes before pages, tables, the check, and the pages.
    assert len(reads) < 16 * 10


def test_pages_too_scattered_to_be_put_in_order_are_refused(sent, tmp_path, monkeypatch):
    monkeypatch.setattr(inorder, "CACHED", 400)
    monkeypatch.setattr(inorder, "MIB", 0)
    (tmp_path / "disk").write_bytes(scattered(16, 100).encode())
    told = tell(tmp_path, *ELF, "-")
    assert told.code == 1
    assert "name a file instead of -" in told.error


def test_memory_is_some_bytes_a_page(sent, tmp_path, monkeypatch):
    monkeypatch.setattr(streamdump, "stdout", lambda text=False: Null())
    target = Target.sound(*(table((1 + 65536 * number, 65536)) for number in range(4)))
    target.chunks[1] = memory((PAGE, (4 << 16) * PAGE, 0))
    (tmp_path / "disk").write_bytes(target.encode())
    tracemalloc.start()
    assert tell(tmp_path, *ELF, "-").code == 0
    assert tracemalloc.get_traced_memory()[1] < 24 * (4 << 16)
    tracemalloc.stop()


class Null(Kept):
    """Standard output that keeps nothing."""

    def write(self, data):
        pass


@pytest.mark.parametrize(
    ("name", "words", "instead"),
    [
        ("PAGES_MAX", ("collect", "DISK", "OUT"), "use --format elf OUT"),
        ("IN_ORDER_MAX", (*ELF, "-"), "name a file instead of -"),
    ],
)
def test_too_many_pages_are_refused_with_what_can_be_done(
    name, words, instead, sent, tmp_path, monkeypatch
):
    monkeypatch.setattr(streamdump, name, 30)
    (tmp_path / "disk").write_bytes(Target.sound().encode())
    told = tell(tmp_path, *words)
    assert told.code == 1
    assert instead in told.error
    assert tell(tmp_path, *ELF, "OUT").code == 0
