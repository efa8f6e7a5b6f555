"""A target with a dump that was damaged: each damage is told, or the result is the same without."""

import os
import random
import struct

import pytest
from fixtures.cutcrash import COPY, DATA, HEAD, CutCrash, tell
from fixtures.kdumpreader import Reader
from fixtures.streamreader import LOG, MEMORY, PAGES, RAW
from fixtures.targets import PAGE

from pvfw import superblock

SECTOR = 512
KDUMP = ("collect", "--format", "kdump", "--compress", "zstd", "DISK", "OUT")
LOG_ALONE = ("collect", "--log", "DISK", "OUT")


class Sound:
    """A target with a dump that is whole.

    Attributes: data, of the target; stream, streamreader.Found; file, the KDUMP file of it.
    """

    def __init__(self, folder, seed, cmdline):
        crash = CutCrash(seed, cmdline=cmdline).by_firmware()
        self.data, self.stream = bytes(crash.disk.data), crash.stream()
        self.end = DATA + self.stream.size
        told = put(folder, self.data, *KDUMP)
        assert (told.code, told.error) == (0, "")
        self.file = told.file
        self.ends = [DATA + at for at, _ in self.stream.chunks[1:]] + [self.end]

    def chunk(self, at):
        """Return (begin, end, kind) of the chunk that a byte of the target is in; None: in none."""
        for (begin, kind), end in zip(self.stream.chunks, self.ends, strict=True):
            if DATA + begin <= at < end:
                return DATA + begin, end, kind
        return None

    def place(self, choice):
        """Draw a byte of the used part: half of the time one of those that few pages have."""
        begin, kind = choice.choice(self.stream.chunks)
        end = self.chunk(DATA + begin)[1]
        few = (
            choice.randrange(HEAD),
            COPY + choice.randrange(HEAD),
            DATA + begin + choice.randrange(48),
            end - 1 - choice.randrange(600),
            DATA + begin + choice.randrange(1200 if kind in (PAGES, RAW) else end - DATA - begin),
        )
        return choice.choice((choice.choice(few), DATA + choice.randrange(self.stream.size)))


def put(folder, data, *words):
    (folder / "disk").write_bytes(data)
    return tell(folder, *words)


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sound")
    levels = ("pvdump.compress=zstd", "pvdump.compress=none")
    return [Sound(folder, 7 + number, words) for number, words in enumerate(levels)]


def pages_of_others(sound, at):
    """The pages that chunks hold other than that of a byte of the target."""
    begin, end, kind = sound.chunk(at) or (0, 0, 0)
    if kind not in (PAGES, RAW):
        return sound.stream.pages
    raw = sound.data[begin:end]
    value, count = struct.unpack_from("<QI", raw, 32)
    own = set()
    for number in range(count):
        if kind == RAW:
            own.add(struct.unpack_from("<QI", raw, 48 + 12 * number)[0])
            continue
        entry = struct.unpack_from("<Q", raw, 48 + value + 8 * number)[0]
        run = 1 if entry & 0xFFFF else (entry >> 16 & 0xFFFF) + 1
        own.update(range(entry >> 32, (entry >> 32) + run))
    return {pfn: page for pfn, page in sound.stream.pages.items() if pfn not in own}


def is_told(sound, told):
    """What is wrong is told and marked, and what is in the file is right."""
    assert told.code == 3
    assert told.error.count("\n") >= 2
    file = Reader(told.file)
    assert file.status & 8
    assert file.pages.items() <= sound.stream.pages.items()
    return file


@pytest.mark.fuzz("flips")
def test_a_byte_that_changed_is_told_and_costs_its_chunk_alone(sounds, fuzz, tmp_path):
    for seed in fuzz.seeds(150):
        choice = random.Random(seed)
        sound = choice.choice(sounds)
        at = sound.place(choice)
        data = bytearray(sound.data)
        data[at] ^= choice.randint(1, 255)
        told = put(tmp_path, data, *KDUMP)
        if at < HEAD:
            assert (told.code, told.file) == (1, None)
            assert "collect --salvage" in told.error
            if seed % 4 == 0:
                told = put(tmp_path, data, *KDUMP[:1], "--salvage", *KDUMP[1:])
                assert (told.code, told.file) == (0, sound.file)
            fuzz.done["in the superblock"] += 1
        elif at >= COPY:
            assert (told.code, told.error, told.file) == (0, "", sound.file)
            fuzz.done["in its copy"] += 1
        else:
            file = is_told(sound, told)
            assert file.pages.items() >= pages_of_others(sound, at).items()
            if sound.chunk(at)[2] == LOG:
                told = put(tmp_path, data, *LOG_ALONE)
                assert told.code == 3
                assert told.file != sound.stream.log
            fuzz.done[f"in a chunk of kind {sound.chunk(at)[2]}"] += 1


def zeroed(choice, data, sound, other):
    size = choice.choice((SECTOR, PAGE))
    at = sound.place(choice) // size * size
    data[at : at + size] = bytes(size)


def swapped(choice, data, sound, other):
    size = choice.choice((SECTOR, PAGE))
    one, two = (sound.place(choice) // size * size for _ in range(2))
    data[one : one + size], data[two : two + size] = (
        data[two : two + size],
        data[one : one + size],
    )


def older(choice, data, sound, other):
    """A write that was lost, so that an older dump is still there."""
    size = choice.choice((SECTOR, PAGE, 16 * PAGE))
    at = sound.place(choice) // size * size
    at = max(at, DATA)
    data[at : at + size] = other.data[at : at + size]


def moved(choice, data, sound, other):
    """A write that went to another place."""
    size = choice.choice((SECTOR, PAGE, 4 * PAGE))
    one, two = (sound.place(choice) // size * size for _ in range(2))
    data[two : two + size] = sound.data[one : one + size]


@pytest.mark.fuzz("damage")
@pytest.mark.parametrize("damage", [zeroed, swapped, older, moved], ids=lambda each: each.__name__)
def test_damage_of_any_kind_is_told_and_adds_nothing(damage, sounds, fuzz, tmp_path):
    for seed in fuzz.seeds(25):
        choice = random.Random(seed)
        sound, other = choice.sample(sounds, 2)
        data = bytearray(sound.data)
        damage(choice, data, sound, other)
        assert len(data) == len(sound.data)
        told = put(tmp_path, data, *KDUMP)
        if data[:HEAD] != sound.data[:HEAD]:
            assert (told.code, told.file) == (1, None)
            fuzz.done["refused"] += 1
        elif data[DATA : sound.end] == sound.data[DATA : sound.end]:
            assert (told.code, told.error, told.file) == (0, "", sound.file)
            fuzz.done["harmless"] += 1
        else:
            is_told(sound, told)
            fuzz.done["told"] += 1


@pytest.mark.parametrize("at", [0, HEAD - 1, COPY, COPY + HEAD - 1])
def test_with_one_superblock_of_two_the_dump_is_whole(sounds, at, tmp_path):
    data = bytearray(sounds[0].data)
    data[at] ^= 1
    words = KDUMP if at >= COPY else (*KDUMP[:1], "--salvage", *KDUMP[1:])
    told = put(tmp_path, data, *words)
    assert (told.code, told.file) == (0, sounds[0].file)


def test_without_both_superblocks_the_pages_are_salvaged(sounds, tmp_path):
    data = bytearray(sounds[0].data)
    data[:HEAD] = data[COPY : COPY + HEAD] = bytes(HEAD)
    told = put(tmp_path, data, *KDUMP[:1], "--salvage", *KDUMP[1:])
    assert is_told(sounds[0], told).pages == sounds[0].stream.pages
    assert "all that was to be in it is there all the same" in told.error


def test_the_log_is_salvaged_without_superblocks(sounds, tmp_path):
    data = bytearray(sounds[0].data)
    data[:HEAD] = data[COPY : COPY + HEAD] = bytes(HEAD)
    told = put(tmp_path, data, "collect", "--salvage", "--log", "DISK", "OUT")
    assert told.file == sounds[0].stream.log


@pytest.mark.parametrize("state", [superblock.WRITING, superblock.PARTIAL])
def test_a_stream_with_its_end_behind_an_unfinished_superblock_is_told_to_be_whole(
    sounds, state, tmp_path
):
    told = put(tmp_path, restated(sounds[0], state), *KDUMP)
    assert is_told(sounds[0], told).pages == sounds[0].stream.pages
    assert "all that was to be in it is there all the same" in told.error


@pytest.mark.parametrize("words", [KDUMP, LOG_ALONE])
def test_a_dump_without_any_chunk_gives_no_file_but_the_reason(sounds, words, tmp_path):
    data = restated(sounds[0], superblock.WRITING)
    told = put(tmp_path, data[:DATA] + bytes(len(data) - DATA), *words)
    assert (told.code, told.file) == (1, None)
    assert "nothing to collect" in told.error or "no log" in told.error


def restated(sound, state, size=None):
    """Return the target with another state, and bytes of the dump, in its superblock."""
    block = superblock.decode(sound.data)
    block.state, block.dump_size, block.written = state, 0, PAGE
    if size is not None:
        block.dump_size = block.written = size
    return block.encode() + sound.data[HEAD:]


@pytest.mark.parametrize("more", [-64 * PAGE, -PAGE, PAGE, 100 * PAGE])
def test_a_complete_dump_of_another_size_is_told(sounds, more, tmp_path):
    sound = sounds[0]
    data = restated(sound, superblock.COMPLETE, sound.stream.size + more)
    if more < 0:
        # What is behind is that of another dump.
        data = data[: sound.end + more] + bytes(len(data) - sound.end - more)
    told = put(tmp_path, data, *KDUMP)
    if more < 0:
        is_told(sound, told)
        assert "the manifest is missing" in told.error
    else:
        assert (told.code, told.file) == (0, sound.file)


@pytest.mark.parametrize("first", ["ready", "complete"])
@pytest.mark.parametrize("copy", ["ready", "complete", "writing", "other"])
def test_the_first_superblock_counts_whatever_its_copy_says(sounds, first, copy, tmp_path):
    sound = sounds[0]
    blocks = {
        "ready": superblock.Superblock(bytes(16), len(sound.data)).encode(),
        "complete": sound.data[:HEAD],
        "writing": restated(sound, superblock.WRITING)[:HEAD],
        "other": sounds[1].data[:HEAD],
    }
    data = blocks[first] + sound.data[HEAD:COPY] + blocks[copy] + sound.data[COPY + HEAD :]
    told = put(tmp_path, data, *KDUMP)
    if first == "ready":
        assert told.code == 1
        assert "holds no dump" in told.error
    else:
        assert (told.code, told.file) == (0, sound.file)


@pytest.mark.parametrize("copy", ["complete", "writing"])
def test_salvage_takes_the_copy_of_a_dump_that_the_first_superblock_denies(sounds, copy, tmp_path):
    sound = sounds[0]
    ready = superblock.Superblock(bytes(range(16)), len(sound.data)).encode()
    block = restated(sound, superblock.WRITING) if copy == "writing" else sound.data
    data = ready + sound.data[HEAD:COPY] + block[:HEAD] + sound.data[COPY + HEAD :]
    told = put(tmp_path, data, *KDUMP[:1], "--salvage", *KDUMP[1:])
    assert told.code == (0 if copy == "complete" else 3)
    assert Reader(told.file).pages == sound.stream.pages


@pytest.mark.parametrize("seed", range(12))
def test_a_target_that_was_cut_gives_what_is_left(sounds, seed, tmp_path):
    sound = sounds[seed % 2]
    size = random.Random(seed).randrange(0, len(sound.data))
    told = put(tmp_path, sound.data[:size], *KDUMP)
    if size <= DATA:
        assert told.code == 1
        assert told.file is None
    elif size < sound.end:
        is_told(sound, told)
        assert f"the target ends at byte {size}" in told.error
    else:
        assert (told.code, told.file) == (0, sound.file)
    assert (tmp_path / "disk").stat().st_size == size


def test_a_damaged_table_names_no_frames_outside_memory(sounds, tmp_path):
    sound = sounds[0]
    begin = DATA + next(at for at, kind in sound.stream.chunks if kind == PAGES)
    value = struct.unpack_from("<Q", sound.data, begin + 32)[0]
    data = bytearray(sound.data)
    data[begin + 48 + value + 7] = 0xFF
    file = is_told(sound, put(tmp_path, data, *KDUMP))
    assert file.max_mapnr == Reader(sound.file).max_mapnr


def test_pages_outside_the_memory_that_is_told_are_kept(sounds, tmp_path):
    """The chunk that tells of memory is damaged: no other is lost."""
    sound = sounds[0]
    begin = DATA + next(at for at, kind in sound.stream.chunks if kind == MEMORY)
    data = bytearray(sound.data)
    data[begin + 60] ^= 1
    assert is_told(sound, put(tmp_path, data, *KDUMP)).pages == sound.stream.pages


def test_a_large_hole_in_a_stream_is_passed_in_large_steps(sounds, tmp_path, monkeypatch):
    sound = sounds[0]
    block = superblock.decode(sound.data)
    block.size = 1 << 36
    block.dump_size = block.written = block.room()
    disk = tmp_path / "disk"
    with disk.open("wb") as stream:
        stream.write(block.encode() + sound.data[HEAD : sound.end - PAGE])
        stream.truncate(1 << 30)
    reads = []
    pread = os.pread
    monkeypatch.setattr(os, "pread", lambda *args: reads.append(args) or pread(*args))
    is_told(sound, tell(tmp_path, *KDUMP))
    assert len(reads) < 10000
