"""Our front end on our backend, by seed: nothing hangs, and nothing acknowledged is lost."""

import pytest
from blkback.cache import CachedDisk
from blkback.sectors import SECTOR, Lost
from blkback.story import Story
from blkback.world import HARMFUL, HELPED

OPERATIONS = 25


@pytest.mark.fuzz("block-both-ends")
def test_what_can_be_helped_is_not_noticed(fuzz):
    for seed in fuzz.seeds(30):
        Story(seed, HELPED).run(OPERATIONS)


@pytest.mark.fuzz("block-both-ends-harmful")
def test_what_cannot_be_helped_is_told_and_nothing_else_is_lost(fuzz):
    for seed in fuzz.seeds(30):
        Story(seed, HELPED + HARMFUL).run(OPERATIONS)


class Forgets(CachedDisk):
    """It says that it flushed."""

    def flush(self):
        self._strike("flush")


class Loses(CachedDisk):
    """It says that it wrote, and did not now and then."""

    def write(self, offset, buffers):
        if self.draw.random() < 0.9:
            super().write(offset, buffers)


class Halves(CachedDisk):
    """It writes all but the last sector."""

    def _put(self, offset, data):
        super()._put(offset, data[:-SECTOR] if len(data) > SECTOR else data)


class Misses(CachedDisk):
    """It writes elsewhere now and then."""

    def write(self, offset, buffers):
        missed = self.draw.random() < 0.1 and offset
        super().write(offset - SECTOR if missed else offset, buffers)


class Repeats(CachedDisk):
    """It writes once more, later, what it wrote before."""

    def __init__(self, *args):
        super().__init__(*args)
        self.before = None

    def write(self, offset, buffers):
        super().write(offset, buffers)
        if self.before is not None and self.draw.random() < 0.2:
            self._put(*self.before)
        self.before = offset, b"".join(map(bytes, buffers))


@pytest.mark.parametrize("disk", [Forgets, Loses, Halves, Misses, Repeats])
def test_a_disk_that_lies_is_found_out(disk):
    def tell():
        for seed in range(1, 30):
            Story(seed, (), disk).run(OPERATIONS)

    with pytest.raises(Lost):
        tell()
