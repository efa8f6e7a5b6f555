"""A dump that fails half way: the superblock says how far it got and why, and so does xenstore."""

import pytest
from fixtures import streamreader
from fixtures.crashedguest import Crash

from pvfw import main, superblock
from pvfw.packer import BUFFER_PAGES
from pvfw.target import Target
from xenpv import abi
from xenpv.block.front import BlkFront
from xenpv.block.queue import Queue

BUFFER = BUFFER_PAGES * 4096
FAILS = 10000  # sector


def whole():
    """The pages of a dump that nothing disturbs."""
    crash = Crash()
    crash.run()
    return streamreader.read(bytes(crash.disk.data)).pages


def assert_beginning(crash, pages):
    """What is on the disk begins a dump of these pages, as far as the superblock says."""
    found = streamreader.read(bytes(crash.disk.data))
    assert found.size >= crash.superblock().written // BUFFER * BUFFER - BUFFER
    assert found.pages.items() <= pages.items()


def fail_at_answer(monkeypatch, number, error):
    """Have the task that takes the backend's answers fail at one of them."""
    answers = iter(range(number, 0, -1))

    def judge(self, part, status):
        if next(answers, None) == 1:
            raise error
        original(self, part, status)

    original = Queue._judge
    monkeypatch.setattr(Queue, "_judge", judge)


def assert_partial(crash, reason):
    block = crash.superblock()
    assert block.state == superblock.PARTIAL
    assert reason in block.reason
    assert block.written > 0
    assert block.dump_size == 0
    assert crash.reported("state") == "failed"
    assert crash.reported("reason") == block.reason
    return block.written


@pytest.mark.parametrize("limit", [1 << 20, 8 << 20, 20 << 20])
def test_a_disk_full_half_way_leaves_a_partial_dump_that_says_so(limit, capsys):
    crash = Crash(error_after=limit, reorder=True, latency=1000)
    assert crash.run() == abi.SHUTDOWN_poweroff
    block = crash.superblock()
    assert block.state == superblock.PARTIAL
    assert "failed: status -1 (ERROR)" in block.reason
    assert 0 < block.written <= limit
    assert limit - block.written < 2 << 20
    assert_beginning(crash, whole())
    assert "dump partial: " in capsys.readouterr().out
    assert crash.reported("state") == "failed"


def test_a_task_without_memory_leaves_a_partial_dump_that_says_so(capsys, monkeypatch):
    reason = "memory allocation failed, allocating 1234 bytes"
    expected = whole()
    capsys.readouterr()
    fail_at_answer(monkeypatch, 8, MemoryError(reason))
    crash = Crash()
    assert crash.run() == abi.SHUTDOWN_poweroff
    assert_partial(crash, reason)
    assert_beginning(crash, expected)
    assert capsys.readouterr().out.count("dump failed:") == 1


def test_an_unforeseen_error_of_a_task_leaves_a_partial_dump_too(capsys, monkeypatch):
    fail_at_answer(monkeypatch, 8, OverflowError("a number too large"))
    crash = Crash()
    with pytest.raises(OverflowError, match="a number too large"):
        main.main()
    assert_partial(crash, "OverflowError: a number too large")


def test_without_memory_in_the_dump_itself_the_dump_is_partial_and_says_so(capsys, monkeypatch):
    async def own(self, gfn, count):
        if self.written() > 2 << 20:
            raise MemoryError("memory allocation failed, allocating 1234 bytes")
        await original(self, gfn, count)

    original = Target.own
    monkeypatch.setattr(Target, "own", own)
    crash = Crash()
    assert crash.run() == abi.SHUTDOWN_poweroff
    assert crash.superblock().state == superblock.PARTIAL
    reason = "out of memory: memory allocation failed, allocating 1234 bytes"
    assert crash.superblock().reason == crash.reported("reason") == reason
    assert f"dump failed: {reason}" in capsys.readouterr().out


def test_an_error_that_nobody_foresaw_leaves_a_partial_dump(capsys, monkeypatch):
    crash = Crash()

    async def write(self, sector, *rest):
        if FAILS < sector < 60000:
            raise OverflowError("a number too large")
        await original(self, sector, *rest)

    original = BlkFront.write
    monkeypatch.setattr(BlkFront, "write", write)
    with pytest.raises(OverflowError):
        main.main()
    block = crash.superblock()
    assert block.state == superblock.PARTIAL
    assert block.reason == crash.reported("reason") == "OverflowError: a number too large"
    assert 4 << 20 < block.written < 8 << 20


def test_a_backend_that_dies_half_way_is_reported_where_it_still_works(capsys):
    crash = Crash(dies=10, no_init_wait=True)
    assert crash.run() == abi.SHUTDOWN_poweroff
    assert crash.superblock().state == superblock.WRITING
    said = capsys.readouterr().out
    assert "the backend left Connected" in said
    assert "the superblock could not be set to partial" in said
    assert crash.reported("state") == "failed"
    assert "left Connected" in crash.reported("reason")


def test_a_backend_that_stops_answering_does_not_hang_the_guest(capsys):
    crash = Crash(never_answers=10)
    assert crash.run() == abi.SHUTDOWN_poweroff
    assert "no request completed for 30 s" in capsys.readouterr().out
