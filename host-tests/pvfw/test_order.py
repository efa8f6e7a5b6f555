"""The order of a dump: what says why the kernel died, its stacks, and what readers need first."""

import pytest
from fixtures import streamreader
from fixtures.crashedguest import GOOD, LOADS, Crash
from fixtures.streamreader import LOG, PAGES, RAW, UNREADABLE

from pvfw import stream, superblock, writer
from xenpv import abi

PAGE = 4096
MIB = 1 << 20
KERNEL = range(LOADS[0][1] // PAGE, (LOADS[0][1] + LOADS[0][3]) // PAGE)


def dumped(line="", hidden=(), machine=None, **options):
    """Dump a guest whose kernel died. Returns (the guest, the kernel, what is on its disk)."""
    crash = Crash(f"{GOOD} {line}", **options)
    kernel = crash.die(hidden=hidden)
    if machine:
        machine(crash.guest.machine, kernel)
    assert crash.run() == abi.SHUTDOWN_poweroff
    assert crash.superblock().state == superblock.COMPLETE
    return crash, kernel, streamreader.read(bytes(crash.disk.data))


@pytest.fixture(scope="module")
def dump():
    return dumped()


def test_the_crashed_cpus_stacks_are_the_first_pages(dump):
    _, kernel, found = dump
    assert found.order[: len(kernel.stacks)] == kernel.stacks


def test_the_stacks_are_as_they_were_though_they_come_twice(dump):
    crash, kernel, found = dump
    for frame in kernel.stacks:
        assert found.pages[frame] == crash.memory[frame * PAGE : frame * PAGE + PAGE]
        assert found.order.count(frame) == 2


def test_the_kernels_own_pages_then_slab_and_page_tables_then_the_rest(dump):
    _, kernel, found = dump
    rest = found.order[len(kernel.stacks) :]
    assert rest[: len(KERNEL)] == list(KERNEL)
    first = sorted(kernel.slab | kernel.tables)
    assert rest[len(KERNEL) :][: len(first)] == first
    assert not set(rest[len(KERNEL) + len(first) :]) & {*first, *KERNEL}


# Each range begins and ends in the middle of a page.
CUT = tuple((va + 0x400, pa + 0x400, at + 0x400, size - 0x500) for va, pa, at, size in LOADS)


@pytest.mark.parametrize("loads", [LOADS, CUT], ids=["whole pages", "cut pages"])
def test_each_page_but_the_stacks_comes_once(loads):
    _, kernel, found = dumped(loads=loads)
    rest = found.order[len(kernel.stacks) :]
    assert len(rest) == len(set(rest))


def test_pages_that_come_twice_count_once_in_what_is_done(monkeypatch, capsys):
    done = []
    write = stream.Stream.write

    async def watched(self, sink):
        size = await write(self, sink)
        done.append((self.done, self.pages))
        return size

    monkeypatch.setattr(stream.Stream, "write", watched)
    dumped()
    assert done == [(done[0][1], done[0][1])]


def test_by_turns_a_dump_has_each_page_that_one_walk_has(dump):
    crash, _, found = dump
    _, _, at_once = dumped(hidden=("OFFSET(page._mapcount)",))
    assert found.pages.keys() | dump[1].free == at_once.pages.keys()
    assert crash.superblock().dump_size == found.size


@pytest.mark.parametrize("level", [0, 1, 2, 31])
def test_every_level_has_slab_and_page_tables_before_the_rest(level):
    _, kernel, found = dumped(f"pvdump.level={level}")
    first = sorted(kernel.slab | kernel.tables)
    begin = len(kernel.stacks) + len(KERNEL)
    assert found.order[begin : begin + len(first)] == first
    free = 0 if level & 16 else len(kernel.free)
    frames = {p for _, at, _, n in LOADS for p in range(at // PAGE, -(-(at + n) // PAGE))}
    assert len(found.pages) == len(frames) - len(kernel.free) + free


def test_without_the_facts_all_pages_come_in_one_walk():
    _, kernel, found = dumped(hidden=("OFFSET(page._mapcount)",))
    rest = found.order[len(kernel.stacks) + len(KERNEL) :]
    assert rest == sorted(rest)


def test_pages_as_they_are_have_the_same_order(dump):
    _, _, found = dumped("pvdump.compress=none")
    assert found.order == dump[2].order
    assert RAW in dict(found.chunks).values()


def test_a_dump_cut_after_a_mib_has_the_log_and_the_stacks(dump):
    crash, kernel, _ = dump
    raw = bytearray(crash.disk.data)
    cut = crash.superblock().data_offset + MIB
    raw[cut:] = bytes(len(raw) - cut)
    found = streamreader.read(bytes(raw))
    assert found.log.decode().splitlines() == kernel.log
    assert set(kernel.stacks) <= found.pages.keys()


def test_the_log_is_before_the_stacks(dump):
    kinds = [kind for _, kind in dump[2].chunks]
    assert kinds.index(LOG) < kinds.index(PAGES)


def test_a_page_of_a_stack_without_memory_costs_no_other(capsys):
    def lose(machine, kernel):
        machine.holes.add(kernel.stacks[1])

    _, kernel, found = dumped(machine=lose)
    left = [frame for frame in kernel.stacks if frame != kernel.stacks[1]]
    assert found.order[: len(left)] == left
    assert found.unreadable == {kernel.stacks[1]}
    assert UNREADABLE in dict(found.chunks).values()


def test_what_is_kept_is_said_by_class_before_anything_is_written(capsys, monkeypatch):
    crash = Crash()
    crash.die()
    said = []
    save = writer.Writer.put

    async def put(writer, *args, **more):
        if not said:
            said.append(capsys.readouterr().out)
        await save(writer, *args, **more)

    monkeypatch.setattr(writer.Writer, "put", put)
    crash.run()
    assert (
        "to be kept: 24 of 24 MiB (slab 0, page tables 0, other 24); left out: free 0\n" in said[0]
    )


def test_a_guest_too_large_to_be_counted_beforehand_is_dumped_all_the_same(capsys, monkeypatch):
    monkeypatch.setattr(stream, "SURVEY_MAX", 100)
    _, kernel, found = dumped()
    assert "to be kept" not in capsys.readouterr().out
    assert not kernel.free & found.pages.keys()


def test_what_is_left_out_is_counted_once(dump):
    _, kernel, found = dump
    assert found.manifest["free"] == str(len(kernel.free))
