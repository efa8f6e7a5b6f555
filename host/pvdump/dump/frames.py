"""The memory in an ELF vmcore as page frames, which is how a KDUMP file holds it.

Used by collect. The rules: a guest wrote the headers, so what they cost is bounded before it is
spent: frames lie below PADDR_MAX, and the memory has no more bytes than the dump; a page of which
bytes are missing is left out as a whole.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from pvfw import elf
from pvfw.errors import TargetRefused

from .disk import MIB, PAGE, DiskError, TargetDisk
from .notes import SIZE_MAX
from .vmcore import Header

# 16 TiB, which takes two bitmaps of 512 MiB. makedumpfile counts their bytes in 32 bits, and the
# readers keep them in memory.
PADDR_MAX = 1 << 44
BLOCK = MIB
AS_ELF = "`--format elf` copies it as it is"


class Block(NamedTuple):
    """Frames that follow each other: the first, their bytes, the frames that could not be read."""

    first: int
    data: bytes
    bad: list[int]


class Frames:
    """The page frames of a vmcore.

    Args:
        path: of the target, for messages.
        header: of the vmcore, cut to what is there.
        size: bytes of the vmcore that are there.

    Attributes:
        ram: the frames that are memory: (first, end) of each range, in order.
        stored: those of them whose bytes are all there, likewise.

    Raises:
        TargetRefused: no KDUMP file can hold the memory, or the dump does not.
    """

    def __init__(self, path: Path, header: Header, size: int) -> None:
        self._path = path
        segments = header.segments()
        if sum(each.filesz for each in segments if each.kind == elf.PT_NOTE) > SIZE_MAX:
            raise TargetRefused(f"{path}: its notes have more than {SIZE_MAX} bytes; {AS_ELF}")
        for number, each in enumerate(segments):
            if each.kind == elf.PT_LOAD and each.paddr + max(each.memsz, each.filesz) > PADDR_MAX:
                raise TargetRefused(
                    f"{path}: program header {number} names memory up to byte "
                    f"{each.paddr + max(each.memsz, each.filesz):#x}; KDUMP files end at "
                    f"{PADDR_MAX:#x}; {AS_ELF}"
                )
        loads = [each for each in segments if each.kind == elf.PT_LOAD]
        self._extents = header.extents()
        self._starts = [each.start for each in self._extents]
        named = sum(each.end - each.start for each in self._extents)
        if named > size:
            raise TargetRefused(
                f"{path}: its program headers name {named} bytes of memory, the dump has {size}; "
                f"{AS_ELF}"
            )
        memory = merged((each.paddr, each.paddr + each.memsz) for each in loads)
        there = merged((each.start, each.end) for each in self._extents)
        self.ram = touched(memory + there)
        self.stored = _without(touched(there), touched(_without(memory, there)))

    def __len__(self) -> int:
        """Return the number of frames whose bytes are there."""
        return sum(end - first for first, end in self.stored)

    def blocks(self, disk: TargetDisk, offset: int) -> Iterator[Block]:
        """Read the stored frames of the vmcore that begins at `offset` of a disk, in order.

        Raises:
            DiskError: the disk cannot be read.
        """
        for first, end in self.stored:
            while first < end:
                last = min(first + BLOCK // PAGE, end)
                yield self._block(disk, offset, first, last)
                first = last

    def _block(self, disk: TargetDisk, offset: int, first: int, last: int) -> Block:
        start, end = first * PAGE, last * PAGE
        at, parts = start, []
        bad: set[int] = set()
        number = max(bisect_right(self._starts, start) - 1, 0)
        for each in self._extents[number:]:
            if each.start >= end:
                break
            begin, stop = max(each.start, start), min(each.end, end)
            if begin >= stop:
                continue
            parts.append(bytes(begin - at))
            place = offset + each.offset + begin - each.start
            data, lost = self._read(disk, place, stop - begin)
            parts.append(data)
            at = stop
            for where, size in lost:
                there = begin + where - place
                bad.update(range(there // PAGE, (there + size - 1) // PAGE + 1))
        parts.append(bytes(end - at))
        return Block(first, b"".join(parts), sorted(bad))

    def _read(self, disk: TargetDisk, place: int, size: int) -> tuple[bytes, list[tuple[int, int]]]:
        data, lost = disk.read_around(place, size)
        if len(data) < size:
            raise DiskError(f"{disk.path} ends at byte {place + len(data)}, before the dump does")
        return data, lost


def merged(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return ranges in order, with those that touch or overlap made one, and no empty ones."""
    result: list[tuple[int, int]] = []
    for first, end in sorted(ranges):
        if result and first <= result[-1][1]:
            result[-1] = (result[-1][0], max(result[-1][1], end))
        elif first < end:
            result.append((first, end))
    return result


def touched(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the frames that have bytes in ranges of addresses."""
    return merged((start // PAGE, -(-end // PAGE)) for start, end in ranges)


def _without(ranges: list[tuple[int, int]], others: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return what of ranges is not in others; both are in order and have no overlaps."""
    left = []
    number = 0
    for first, end in ranges:
        while number < len(others) and others[number][1] <= first:
            number += 1
        for begin, stop in others[number:]:
            if begin >= end:
                break
            left.append((first, begin))
            first = stop
        left.append((first, end))
    return [(first, end) for first, end in left if first < end]
