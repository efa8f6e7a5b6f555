"""Extents: the sectors of a target on its disk, and a disk that is made of them."""

import random

import pytest
from fixtures.placedcrash import extents
from fixtures.stack import Stack

import hw
from pvfw.errors import TargetRefused
from pvfw.extents import ExtentDisk
from pvxen.guest import EmbeddedGuest
from pvxen.sink import Memory
from xenpv.block.front import BlkFront
from xenpv.errors import BackendError

PAGE = 4096
SECTORS = 8  # of a page
# Pages on the disk: (begin, length).
PIECES = ((20, 2), (4, 1), (5, 3), (40, 1), (8, 4))


def plain(pieces):
    """The page of the disk of each page of the target."""
    return [begin + i for begin, length in pieces for i in range(length)]


@pytest.mark.parametrize("seed", range(30))
def test_each_sector_of_a_run_is_where_its_extent_says(seed):
    choose = random.Random(seed)
    starts = choose.sample(range(0, 4000, 40), choose.randrange(1, 30))
    pieces = [(start, choose.randrange(1, 41)) for start in starts]
    place, pages = extents(pieces, PAGE), plain(pieces)
    assert place.sectors == SECTORS * len(pages)
    assert place.end == SECTORS * (max(pages) + 1)
    for _ in range(50):
        first = choose.randrange(place.sectors)
        count = choose.randrange(1, place.sectors - first + 1)
        found = [at + i for at, number in place.runs(first, count) for i in range(number)]
        assert found == [SECTORS * pages[s // 8] + s % 8 for s in range(first, first + count)]


def test_extents_that_follow_each_other_on_the_disk_are_two_runs():
    assert list(extents(PIECES, PAGE).runs(16, 32)) == [(32, 8), (40, 24)]


class Disk:
    """A disk of 64 pages and a stack that uses its extents."""

    def __init__(self, pieces=PIECES, **faults):
        guest = EmbeddedGuest(seed=3)
        self.sink = Memory(64 * PAGE)
        self.back = guest.disk("xvdb", self.sink, **faults)
        self.stack = Stack()
        self.extents = extents(pieces, PAGE)

    def run(self, work):
        """Await work(ExtentDisk, first frame of as many frames as the target has pages)."""

        async def main():
            stack = self.stack
            front = BlkFront(stack.loop, stack.grants, await stack.device())
            disk = ExtentDisk(front, self.extents)
            await disk.connect()
            pages = disk.sectors // SECTORS
            memory = hw.alloc_pages(pages)
            for i in range(pages):
                hw.mem(memory + i * PAGE, PAGE)[:] = bytes([i + 1]) * PAGE
            try:
                return await work(disk, memory // PAGE)
            finally:
                await disk.close()

        return self.stack.run(main)

    def page(self, number):
        return bytes(self.sink.data[number * PAGE : (number + 1) * PAGE])


def test_a_write_across_the_ends_of_extents_is_split_and_nothing_else_is_written():
    disk = Disk()

    async def work(target, gfn):
        await target.write(0, gfn, target.sectors)
        await target.drain()

    disk.run(work)
    pages = plain(PIECES)
    for number in range(64):
        expected = pages.index(number) + 1 if number in pages else 0
        assert disk.page(number) == bytes([expected]) * PAGE


def test_frames_that_are_used_again_and_again_go_to_each_extent():
    disk = Disk()

    async def work(target, gfn):
        hw.mem((gfn + 1) * PAGE, 10 * PAGE)[:] = bytes([1]) * 10 * PAGE
        await target.write(0, gfn, target.sectors, 11)
        await target.drain()

    disk.run(work)
    assert {number for number in range(64) if any(disk.page(number))} == set(plain(PIECES))


def test_a_read_puts_the_extents_one_behind_the_other():
    disk = Disk()
    disk.sink.data[:] = b"".join(bytes([n]) * PAGE for n in range(64))

    async def work(target, gfn):
        await target.read(8, gfn, target.sectors - 8)
        await target.drain()
        return bytes(hw.mem(gfn * PAGE, 10 * PAGE))

    assert disk.run(work)[::PAGE] == bytes(plain(PIECES)[1:])


@pytest.mark.parametrize("seed", range(20))
def test_what_is_acknowledged_ends_where_the_first_write_that_is_not_begins(seed):
    """Whatever the order of the extents on the disk, and of the answers."""
    disk = Disk(reorder=True, latency=1000)
    choose = random.Random(seed)
    pages = plain(PIECES)

    async def work(target, gfn):
        at = 1
        while at < len(pages):
            count = min(choose.randrange(1, 4), len(pages) - at)
            await target.write(SECTORS * at, gfn + at, SECTORS * count)
            at += count
            if choose.random() < 0.5:
                # As the superblock is, on the way.
                await target.write(0, gfn, 1)
            for _ in range(choose.randrange(4)):
                done = target.acknowledged(SECTORS) // SECTORS
                assert 1 <= done <= at
                for number in range(1, done):
                    assert disk.page(pages[number]) == bytes([number + 1]) * PAGE
                await disk.stack.loop.sleep(choose.randrange(1000))
        await target.wait(SECTORS, SECTORS * len(pages))
        return target.acknowledged(SECTORS)

    assert disk.run(work) == SECTORS * len(pages)


def test_after_a_failed_write_what_is_acknowledged_ends_before_it():
    disk = Disk()
    disk.sink.write = failing(disk.sink.write, plain(PIECES)[4] * PAGE)

    async def fill(target, gfn):
        for number in range(target.sectors // SECTORS):
            await target.write(SECTORS * number, gfn + number, SECTORS)
            await target.drain()

    async def work(target, gfn):
        with pytest.raises(BackendError, match="write of sector 48 failed"):
            await fill(target, gfn)
        await target.settle()
        return target.acknowledged(SECTORS)

    assert disk.run(work) == SECTORS * 4


def failing(write, place):
    def fail(offset, buffers):
        if offset == place:
            raise OSError(5, "no")
        write(offset, buffers)

    return fail


def test_whether_a_sector_is_being_written_is_asked_of_its_place_on_the_disk():
    disk = Disk(latency=1000)

    async def work(target, gfn):
        await target.write(0, gfn, 1)
        found = [target.writing(0), target.writing(2 * SECTORS)]
        await target.drain()
        return [*found, target.writing(0)]

    assert disk.run(work) == [True, False, False]


def test_a_disk_that_ends_before_the_extents_is_refused():
    disk = Disk(pieces=((60, 4), (64, 1)))

    async def work(target, gfn):
        with pytest.raises(TargetRefused, match="go up to sector 520, but the disk has 512"):
            target.check()

    disk.run(work)
