"""A target that somebody made to do harm: no traceback, and no more memory and work than told."""

import os
import random
import struct
import tracemalloc
import zlib
from array import array
from collections import Counter

import pytest
import zstandard
from fixtures import hostilestream
from fixtures.cutcrash import tell
from fixtures.hostilestream import BOMB, FRAMES, MIB, PAGE, SIZE, Chunk, Target, memory, table
from fixtures.kdumpreader import Reader
from fixtures.streamreader import FACTS, LOG, MANIFEST, NOTES

from pvdump.dump import compression, pageruns, prelude, streamdump
from pvdump.dump.frames import merged
from pvdump.dump.output import OutputStream

MEMORY_MAX = 96 * MIB
READ_MAX = 12 * SIZE
WAYS = {
    "kdump": ("collect", "--compress", "zstd", "DISK", "OUT"),
    "zlib": ("collect", "--compress", "zlib", "DISK", "OUT"),
    "elf": ("collect", "--format", "elf", "DISK", "OUT"),
    "elf in order": ("collect", "--format", "elf", "DISK", "-"),
    "log": ("collect", "--log", "DISK", "OUT"),
    "salvage": ("collect", "--salvage", "DISK", "OUT"),
    "info": ("info", "DISK"),
}

# Of a superblock: offset and bytes.
FIELDS = (
    *((8, 4), (12, 4), (16, 8), (32, 8), (40, 8), (48, 8), (56, 8), (64, 8), (72, 8), (80, 4)),
    *((84, 8), (148, 8), (340, 8), (348, 8), (356, 4), (360, 4), (364, 4)),
)


class Pipe(OutputStream):
    """Standard output that is closed once it was given `most` bytes."""

    def __init__(self, most):
        self.most = most
        self.data = b""

    def write(self, data):
        self.most -= len(data)
        if self.most < 0:
            raise BrokenPipeError


@pytest.fixture
def work(monkeypatch):
    """Bound what a file may have, and count the bytes that are read."""
    read = Counter()
    pread = os.pread

    def counted(fd, size, offset):
        read["bytes"] += size
        read["calls"] += 1
        return pread(fd, size, offset)

    monkeypatch.setattr(os, "pread", counted)
    monkeypatch.setattr(streamdump, "PAGES_MAX", 1 << 16)
    monkeypatch.setattr(streamdump, "IN_ORDER_MAX", 1 << 17)
    monkeypatch.setattr(streamdump, "stdout", lambda text=False: Pipe(32 * MIB))
    return read


def collected(folder, way, read):
    """Run pvdump in one way. Returns what it told; checks what it cost."""
    read.clear()
    tracemalloc.start()
    try:
        told = tell(folder, *WAYS[way])
        assert tracemalloc.get_traced_memory()[1] < MEMORY_MAX
    finally:
        tracemalloc.stop()
    assert read["bytes"] < READ_MAX
    assert read["calls"] < 20 * SIZE // PAGE
    assert all(line.isprintable() for line in told.error.splitlines())
    assert told.code in (0, 1, 3, 141), told.error
    assert told.code != 1 or (told.file is None and told.error.count("\n") == 1)
    return told


@pytest.mark.fuzz("stream")
def test_a_stream_that_lies_costs_little_and_gives_no_traceback(work, fuzz, tmp_path):
    for seed in fuzz.seeds(30):
        choice = random.Random(seed)
        (tmp_path / "disk").write_bytes(hostilestream.draw(choice))
        for way in choice.sample(sorted(WAYS), 3):
            told = collected(tmp_path, way, work)
            fuzz.done[f"{way}: exit {told.code}"] += 1


@pytest.mark.fuzz("superblock")
def test_a_superblock_that_lies_is_refused_or_costs_little(work, fuzz, tmp_path):
    sound = Target.sound().encode()
    for seed in fuzz.seeds(60):
        choice = random.Random(seed)
        raw = bytearray(sound[:512])
        for _ in range(choice.randint(1, 4)):
            at, size = choice.choice(FIELDS)
            value = choice.choice((hostilestream.number(choice), choice.randrange(6), SIZE))
            raw[at : at + size] = struct.pack("<Q", value)[:size]
        raw[508:] = struct.pack("<I", zlib.crc32(raw[:508]))
        copy = choice.choice((raw, sound[:512], bytes(512)))
        first = choice.choice((raw, raw, bytes(512)))
        data = bytes(first) + sound[512:-PAGE] + bytes(copy).ljust(PAGE, b"\0")
        (tmp_path / "disk").write_bytes(data[: choice.choice((len(data), len(data), 2 * MIB))])
        for way in choice.sample(sorted(WAYS), 3):
            told = collected(tmp_path, way, work)
            fuzz.done[f"{way}: exit {told.code}"] += 1


def test_the_sound_target_is_whole_in_every_way(work, tmp_path):
    (tmp_path / "disk").write_bytes(Target.sound().encode())
    for way in sorted(WAYS):
        assert collected(tmp_path, way, work).code == 0, way


@pytest.mark.parametrize("frame", FRAMES, ids=range(len(FRAMES)))
def test_what_unpacks_to_no_page_is_told_and_costs_no_memory(work, frame, tmp_path):
    target = Target.sound(table((1, frame[: PAGE - 1]), (2, 62)))
    (tmp_path / "disk").write_bytes(target.encode())
    told = collected(tmp_path, "zlib", work)
    if frame == zstandard.ZstdCompressor().compress(bytes(4096)) + b"more":
        assert told.code == 0
        return
    assert told.code == 3
    assert "the page of frame 0x1: " in told.error


def test_a_bomb_is_not_unpacked():
    unpack = compression.unpacker()
    tracemalloc.start()
    with pytest.raises(ValueError, match="4096"):
        unpack(BOMB)
    assert tracemalloc.get_traced_memory()[1] < MIB
    tracemalloc.stop()


def test_pages_of_zeros_that_are_told_again_and_again_are_refused_as_too_many(work, tmp_path):
    (tmp_path / "disk").write_bytes(Target.sound(table(*[(1, 65536)] * 131072)).encode())
    for way in ("kdump", "elf in order"):
        told = tell(tmp_path, *WAYS[way])
        assert told.code == 1
        assert "--format elf OUT" in told.error or "name a file" in told.error
    assert tell(tmp_path, *WAYS["elf"]).code == 3


def test_frames_end_with_the_memory_that_readers_take(work, tmp_path):
    (tmp_path / "disk").write_bytes(Target.sound(table(((1 << 32) - 1, 65536))).encode())
    assert tell(tmp_path, *WAYS["kdump"]).code == 0
    with (tmp_path / "out").open("rb") as file:
        assert struct.unpack("<Q", file.read(PAGE + 104)[-8:]) == (1 << 32,)


def test_a_log_that_was_not_written_by_the_image_cannot_harm_a_terminal(work, tmp_path):
    target = Target.sound()
    target.chunks[3] = Chunk(LOG, b"a\tb\x1b[2J\xff\r\nc\n")
    (tmp_path / "disk").write_bytes(target.encode())
    assert collected(tmp_path, "log", work).file == b"a\tb\\x1b[2J\\xff\\x0d\nc\n"


@pytest.mark.parametrize("kind", [FACTS, NOTES])
def test_chunks_that_come_again_and_again_take_no_more_memory(work, kind, tmp_path):
    target = Target.sound()
    lines = b"".join(b"%x=\n" % number for number in range(120000))
    target.chunks[3:3] = [Chunk(kind, lines[: MIB - PAGE])] * 9
    (tmp_path / "disk").write_bytes(target.encode())
    assert collected(tmp_path, "kdump", work).code == 0


def test_what_only_looks_like_a_chunk_is_read_once(work, tmp_path):
    target = Target.sound()
    target.chunks[-1:] = [Chunk(LOG, dump=1)] * (5 * MIB // PAGE)
    (tmp_path / "disk").write_bytes(target.encode())
    assert collected(tmp_path, "kdump", work).code == 3


@pytest.mark.parametrize(("end", "code"), [(1 << 63, 0), (1 << 64, 1)])
def test_a_dump_that_begins_behind_the_largest_offset_is_told(work, tmp_path, end, code):
    target = Target.sound()
    target.block.size, target.block.data_offset = end - PAGE, end - 3 * PAGE
    (tmp_path / "disk").write_bytes(target.block.encode().ljust(SIZE, b"\0"))
    assert collected(tmp_path, "info", work).code == code
    assert collected(tmp_path, "kdump", work).code == 1


def test_what_a_dump_says_of_itself_is_short_in_a_line(work, tmp_path):
    target = Target.sound()
    target.chunks[0] = Chunk(FACTS, b"cause=" + b"x" * 60000 + b"\n")
    target.chunks.append(Chunk(MANIFEST, b"chunks=" + b"9" * 60000 + b"\n"))
    (tmp_path / "disk").write_bytes(target.encode())
    for way in ("kdump", "info"):
        told = collected(tmp_path, way, work)
        assert max(map(len, (told.error + told.output).splitlines())) < 200


# Many ranges of memory.


def many_ranges(count):
    """A target with so many ranges, of a page each, with a page of zeros in each."""
    target = Target.sound(table(*((2 * number + 1, 1) for number in range(count))))
    ranges = [((2 * number + 1) * PAGE, PAGE, 0) for number in range(count)]
    target.chunks[1:2] = [memory(*ranges[at : at + 40000]) for at in range(0, count, 40000)]
    return target.encode()


def test_more_ranges_than_elf_takes_are_in_a_kdump_file(work, tmp_path):
    (tmp_path / "disk").write_bytes(many_ranges(20000))
    told = tell(tmp_path, *WAYS["kdump"])
    assert told.code == 0
    assert len(Reader(told.file).pages) == 20000


@pytest.mark.parametrize(("count", "code"), [(16383, 0), (16384, 1)])
def test_an_elf_file_has_as_many_ranges_as_its_readers_take(work, count, code, tmp_path):
    (tmp_path / "disk").write_bytes(many_ranges(count))
    told = tell(tmp_path, *WAYS["elf"])
    assert told.code == code
    assert code == 0 or "use --format kdump" in told.error


def test_more_ranges_than_any_image_tells_are_refused(work, monkeypatch, tmp_path):
    monkeypatch.setattr(prelude, "RANGES_MAX", 1000)
    (tmp_path / "disk").write_bytes(many_ranges(1001))
    assert "more than 1000 ranges" in collected(tmp_path, "kdump", work).error


@pytest.mark.parametrize("way", ["kdump", "elf in order"])
def test_pages_in_more_places_outside_memory_than_ranges_are_refused(
    work, monkeypatch, way, tmp_path
):
    monkeypatch.setattr(prelude, "RANGES_MAX", 1000)
    for count, code in ((1000, (0, 3)), (1001, (1,))):
        apart = [table(*((2 * at, 1) for at in range(1 << 20, (1 << 20) + count)))]
        (tmp_path / "disk").write_bytes(Target.sound(*apart).encode())
        told = collected(tmp_path, way, work)
        assert told.code in code
        assert ("more than 1000 ranges" in told.error) == (count == 1001)


def test_frames_are_put_in_order_a_part_at_a_time(monkeypatch):
    monkeypatch.setattr(pageruns, "SORTED", 7)
    choice = random.Random(1)
    drawn = [(choice.randrange(300), choice.randrange(1, 4)) for _ in range(100)]
    runs = pageruns.Runs(array("Q", (first << 32 | number - 1 for first, number in drawn)))
    assert list(runs) == merged((first, first + number) for first, number in drawn)
