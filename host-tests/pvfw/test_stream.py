"""The stream that a dump is, read by a reader of its own and by `pvdump collect`."""

import io
import random
import struct

import pytest
from elftools.elf.elffile import ELFFile
from fixtures import streamreader
from fixtures.crashedguest import GOOD, LOADS, REGION, Crash
from fixtures.streamreader import INDEX, LOG, MANIFEST, MEMORY, NOTES, PAGES, RAW

from pvdump.dump.collect import collect
from pvfw import superblock, writer
from xenpv import abi

PAGE = 4096


def dumped(**options):
    """Make a dump. Returns (the crashed guest, what is on its disk)."""
    crash = Crash(**options)
    assert crash.run() == abi.SHUTDOWN_poweroff
    return crash, streamreader.read(bytes(crash.disk.data))


@pytest.fixture(scope="module")
def dump():
    """A dump that nothing disturbed, as of dumped(); each test leaves it as it is."""
    return dumped()


def expected(crash):
    """Return the pages that a dump has, by frame number."""
    pages = {}
    for _, paddr, source, size in LOADS:
        for pfn in range(paddr // PAGE, -(-(paddr + size) // PAGE)):
            at = pfn * PAGE + source - paddr
            if not REGION[0] <= at < REGION[1]:
                pages[pfn] = crash.memory[at : at + PAGE]
    return pages


def test_every_page_is_in_it_as_it_was(dump):
    crash, found = dump
    assert found.whole
    assert found.pages == expected(crash)
    assert found.size == crash.superblock().dump_size


def test_without_compression_every_page_is_in_it_as_it_was_too(capsys):
    crash, found = dumped(cmdline=f"{GOOD} pvdump.compress=none")
    assert found.whole
    assert found.pages == expected(crash)
    assert RAW in dict(found.chunks).values()
    assert PAGES not in dict(found.chunks).values()
    done, _ = crash.collected()
    assert done.reason == ""


def test_what_says_why_the_kernel_died_comes_before_any_page(dump):
    _, found = dump
    kinds = [kind for _, kind in found.chunks]
    first = kinds.index(PAGES)
    assert {MEMORY, NOTES} <= set(kinds[:first])
    assert LOG not in kinds[first:]
    assert kinds[-2:] == [INDEX, MANIFEST]


def test_the_kernels_own_pages_come_first(dump):
    _, found = dump
    begin = next(iter(found.pages))
    assert begin == LOADS[0][1] // PAGE


def test_it_tells_the_ranges_of_memory_and_the_notes(dump):
    crash, found = dump
    assert found.notes == crash.notes
    ranges = {(paddr, size, vaddr) for vaddr, paddr, _, size in LOADS}
    assert set(found.memory) == ranges
    assert (found.facts["release"], found.facts["vcpu"]) == ("6.1.0-test", "1")


def test_the_indexes_name_every_chunk_but_themselves(capsys, monkeypatch):
    monkeypatch.setattr(writer, "PLACES_MAX", 8)
    _, found = dumped()
    named = [place for place in found.chunks if place[1] not in (INDEX, MANIFEST)]
    assert found.indexed == named
    assert sum(kind == INDEX for _, kind in found.chunks) > 2


@pytest.mark.parametrize("seed", range(50))
def test_every_prefix_is_readable_up_to_where_it_ends(seed, dump):
    crash, whole = dump
    block = crash.superblock()
    cut = random.Random(seed).randrange(block.dump_size)
    raw = bytearray(crash.disk.data)
    raw[block.data_offset + cut :] = b"\xa5" * (len(raw) - block.data_offset - cut)
    found = streamreader.read(bytes(raw))
    assert not found.whole
    ends = [at for at, _ in whole.chunks[1:]]
    assert found.chunks == whole.chunks[: sum(end <= cut for end in ends)]
    assert found.pages.items() <= whole.pages.items()


@pytest.mark.parametrize("kind", ["holes", "foreign"])
def test_runs_of_pages_without_memory_are_told_and_not_stored(kind, capsys):
    frames = set(range(0x1000, 0x1200))
    crash = Crash()
    getattr(crash.guest.machine, kind).update(frames)
    crash.run()
    found = streamreader.read(bytes(crash.disk.data))
    assert found.unreadable == frames
    assert found.pages.keys() == expected(crash).keys() - frames
    assert crash.superblock().state == superblock.COMPLETE


def test_collect_makes_an_elf_file_of_it(dump):
    crash, found = dump
    done, content = crash.collected()
    assert (done.reason, done.size) == ("", found.size)
    elf = ELFFile(io.BytesIO(content))
    assert next(elf.iter_segments("PT_NOTE")).data() == crash.notes
    for segment in elf.iter_segments("PT_LOAD"):
        _, paddr, source, size = next(load for load in LOADS if load[0] == segment["p_vaddr"])
        assert (segment["p_paddr"], segment["p_filesz"]) == (paddr, size)
        assert segment.data() == crash.memory[source : source + size]


@pytest.mark.parametrize("seed", range(50))
def test_a_changed_byte_is_seen_and_costs_no_chunk_but_its_own(seed, dump, tmp_path):
    crash, _ = dump
    block = crash.superblock()
    choice = random.Random(seed)
    at = block.data_offset + choice.randrange(block.dump_size)
    raw = bytearray(crash.disk.data)
    raw[at] ^= 1 << choice.randrange(8)
    (tmp_path / "disk").write_bytes(raw)
    done = collect(tmp_path / "disk", tmp_path / "out", form="kdump")
    assert done.marked
    # The manifest counts what is missing as well, where a header is damaged.
    assert 1 <= len(done.detail) <= 2


def test_the_header_s_layout_is_the_documented_one(dump):
    crash, _ = dump
    block = crash.superblock()
    raw = bytes(crash.disk.data[block.data_offset :][:48])
    fields = struct.unpack("<4sIQQIIQII", raw)
    assert fields[:4] == (b"PVC\n", 1, block.dump, 0)
