"""A dump that fails half way: the superblock says how far it got and why, and so does xenstore."""

import pytest
from fixtures.crashedguest import Crash

from pvfw import main, superblock
from pvfw.target import Target
from xenpv import abi
from xenpv.block.front import BlkFront
from xenpv.block.queue import Queue


def whole():
    """The vmcore of a dump that nothing disturbs."""
    crash = Crash()
    crash.run()
    return crash.vmcore()


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
    assert 0 < block.written < block.dump_size
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
    assert crash.vmcore()[: block.written] == whole()[: block.written]
    assert "dump partial: " in capsys.readouterr().out
    assert crash.reported("state") == "failed"


def test_a_task_without_memory_leaves_a_partial_dump_that_says_so(capsys, monkeypatch):
    reason = "memory allocation failed, allocating 1234 bytes"
    expected = whole()
    capsys.readouterr()
    fail_at_answer(monkeypatch, 8, MemoryError(reason))
    crash = Crash()
    assert crash.run() == abi.SHUTDOWN_poweroff
    written = assert_partial(crash, reason)
    assert crash.vmcore()[:written] == expected[:written]
    assert capsys.readouterr().out.count("dump failed:") == 1


def test_an_unforeseen_error_of_a_task_leaves_a_partial_dump_too(capsys, monkeypatch):
    fail_at_answer(monkeypatch, 8, OverflowError("a number too large"))
    crash = Crash()
    with pytest.raises(OverflowError, match="a number too large"):
        main.main()
    assert_partial(crash, "OverflowError: a number too large")


def test_without_memory_in_the_dump_itself_the_dump_is_partial_and_says_so(capsys, monkeypatch):
    async def frames(self, gfn, count):
        if gfn >= 0x500:
            raise MemoryError("memory allocation failed, allocating 1234 bytes")
        await original(self, gfn, count)

    original = Target.frames
    monkeypatch.setattr(Target, "frames", frames)
    crash = Crash()
    assert crash.run() == abi.SHUTDOWN_poweroff
    assert crash.superblock().state == superblock.PARTIAL
    reason = "out of memory: memory allocation failed, allocating 1234 bytes"
    assert crash.superblock().reason == crash.reported("reason") == reason
    assert f"dump failed: {reason}" in capsys.readouterr().out


def test_an_error_that_nobody_foresaw_leaves_a_partial_dump(capsys, monkeypatch):
    crash = Crash()

    def broken(self, sector, gfn, count):
        raise OverflowError("a number too large")

    async def write(self, sector, gfn, count):
        return (
            broken(self, sector, gfn, count)
            if sector > 10000
            else await original(self, sector, gfn, count)
        )

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
