"""The frames whose pages a stream holds, as runs in order.

Used by collect, before it reads the pages. The rules: only the tables of chunks are read; a table
that is damaged adds no frames outside RAM, so that it costs no other chunk; memory is 16 bytes a
run, and the pages that are told, twice told ones twice, are bounded before they cost anything.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from heapq import merge
from typing import Any

from .frames import merged
from .stream import Stream

SORTED = 1 << 18  # pairs that are in memory as numbers of Python, which take five times as much


class TooMany(Exception):
    """A stream tells of more pages than are taken. number: of those told so far."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class TooScattered(Exception):
    """A stream tells of pages in more ranges outside RAM than are taken."""


class Runs(Sequence[tuple[int, int]]):
    """Runs of frames, (first, end) each, in order and without overlaps.

    Args:
        pairs: first << 32 | number - 1 of each run, in any order; they may overlap.

    Attributes:
        frames: how many in all.
    """

    def __init__(self, pairs: array[int]) -> None:
        self._firsts, self._ends, self._ranks = array("Q"), array("Q"), array("Q")
        self.frames = 0
        end = -1
        for pair in _in_order(pairs):
            first, more = pair >> 32, (pair & 0xFFFFFFFF) + 1
            if first <= end:
                more = max(first + more, end) - end
                self._ends[-1] += more
            else:
                self._firsts.append(first)
                self._ends.append(first + more)
                self._ranks.append(self.frames)
            self.frames += more
            end = self._ends[-1]

    def __len__(self) -> int:
        """Return the number of runs."""
        return len(self._firsts)

    def __getitem__(self, number: Any) -> Any:
        """Return a run."""
        return self._firsts[number], self._ends[number]

    def rank(self, first: int, count: int) -> int:
        """Return how many frames are before a frame; -1 where not all from it on are in one run."""
        number = bisect_right(self._firsts, first) - 1
        if number < 0 or first + count > self._ends[number]:
            return -1
        return self._ranks[number] + first - self._firsts[number]


def _in_order(pairs: array[int]) -> Iterator[int]:
    """Yield numbers in order; `pairs` is in another one afterwards."""
    starts = range(0, len(pairs), SORTED)
    for at in starts:
        pairs[at : at + SORTED] = array("Q", sorted(pairs[at : at + SORTED]))
    view = memoryview(pairs)
    return merge(*(view[at : at + SORTED] for at in starts))


def stored(
    stream: Stream, ram: list[tuple[int, int]], most: int, strangers: int
) -> tuple[Runs, list[tuple[int, int]]]:
    """Return the frames whose pages a stream tells of, and those of them that are outside RAM.

    Args:
        stream: the stream.
        ram: frames of RAM, (first, end) in order, without overlaps.
        most: pages that are taken.
        strangers: ranges outside RAM that are taken.

    Raises:
        TooMany: it tells of more pages.
        TooScattered: it tells of more such ranges.
        DiskError: the disk cannot be read.
    """
    starts = [first for first, _ in ram]
    pairs, told = array("Q"), 0
    outside: list[tuple[int, int]] = []
    for header, at, frames in stream.tables():
        runs = merged((first, first + number) for first, number in frames)
        strange = [run for run in runs if not _inside(run, ram, starts)]
        if strange and isinstance(stream.chunk(header, at), str):
            continue
        outside += strange
        if len(outside) > strangers:
            # Chunk by chunk, so that not all of them are in memory before they are too many.
            outside = merged(outside)
            if len(outside) > strangers:
                raise TooScattered
        told += sum(number for _, number in frames)
        if told > most:
            raise TooMany(told)
        pairs.extend(first << 32 | end - first - 1 for first, end in runs)
    return Runs(pairs), outside


def _inside(run: tuple[int, int], ram: list[tuple[int, int]], starts: list[int]) -> bool:
    number = bisect_right(starts, run[0]) - 1
    return number >= 0 and run[1] <= ram[number][1]
