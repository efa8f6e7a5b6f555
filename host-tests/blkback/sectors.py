"""The allowed data of each sector of a disk: the rules of written, acknowledged, flushed and lost.

Used by stories, which tell it what a front end was asked for and what became of that. Every write
has a number; each of its sectors says which write it is of and which sector it is, so one that was
never asked for, or lies elsewhere, is known at once. Number 0 is zeroes. The rules: a write that is
in flight may have been done or not, and so may one that failed; one that was acknowledged is what
a read finds; one that was acknowledged before a flush is what a loss of power leaves, with whatever
was asked for since.
"""

import struct

SECTOR = 512
MARK = struct.Struct("<QQ")
REPEATS = SECTOR // MARK.size
ZEROES = bytes(SECTOR)


class Lost(AssertionError):
    """A sector holds what it may not hold."""


def content(number, sector):
    return MARK.pack(number, sector) * REPEATS if number else ZEROES


class Sectors:
    """count: of the disk. All sectors begin as zeroes."""

    def __init__(self, count):
        self.count = count
        self._number = 0
        self.losses = 0  # of the disk's cache
        self._now = [{0} for _ in range(count)]  # what a read may find
        self._kept = [{0} for _ in range(count)]  # what a loss of power may leave
        self._pending = {}  # by sector: whether it was written in the end, by number

    # What the front end is asked for.

    def write(self, sector, count):
        """A write begins. Returns its bytes."""
        self._number += 1
        self._begin(sector, count, self._number, True)
        return b"".join(content(self._number, s) for s in range(sector, sector + count))

    def discard(self, sector, count):
        """A discard begins: it may leave zeroes, or do nothing."""
        self._begin(sector, count, 0, False)

    def _begin(self, sector, count, number, sure):
        for s in range(sector, sector + count):
            self._now[s].add(number)
            self._kept[s].add(number)
            self._pending.setdefault(s, {})[number] = sure

    # What became of it.

    def acknowledged(self, sectors=None):
        """All that was in flight has been done, or what touches these sectors."""
        for s in list(self._pending) if sectors is None else sectors:
            pending = self._pending.pop(s)
            if any(pending.values()):
                self._now[s] = set(pending)

    def failed(self):
        """Of what was in flight, nobody knows what was done."""
        self._pending.clear()

    def flushed(self):
        """A flush that was asked for when nothing was in flight has been done."""
        self._kept = [set(now) for now in self._now]

    def check(self, sector, data):
        """A read found this; what is in flight may have been done or not. Raises Lost."""
        for s, found in self._numbers(sector, data):
            if found not in self._now[s]:
                raise Lost(f"sector {s} holds write {found}, not one of {sorted(self._now[s])}")

    def found(self, sector, data):
        """A read found this when nothing was in flight: so it is. Raises Lost."""
        self.check(sector, data)
        for s, number in self._numbers(sector, data):
            self._now[s] = {number}

    def cache_lost(self):
        """The disk lost what it had not flushed, and goes on."""
        self.losses += 1
        for s in range(self.count):
            self._now[s] |= self._kept[s]
        for pending in self._pending.values():
            pending.update(dict.fromkeys(pending, False))

    def power_lost(self, data):
        """This is what a loss of power left. Raises Lost."""
        self._pending.clear()
        for s, number in self._numbers(0, data):
            if number not in self._kept[s]:
                kept = sorted(self._kept[s])
                raise Lost(f"power was lost: sector {s} holds write {number}, not one of {kept}")
            self._now[s] = {number}
            self._kept[s] = {number}

    def _numbers(self, sector, data):
        """(sector, number of the write it holds) of each. Raises Lost for what is none's."""
        for i in range(len(data) // SECTOR):
            found = bytes(data[i * SECTOR : (i + 1) * SECTOR])
            number, s = MARK.unpack_from(found)
            if found != content(number, sector + i):
                raise Lost(f"sector {sector + i} holds write {number}'s sector {s}, {found[:40]}")
            yield sector + i, number
