"""The bitmaps of a KDUMP file: a bit for each frame, made a piece at a time.

Used by kdump.py. The rule: memory use does not grow with the RAM.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from .disk import MIB, PAGE

BITS = PAGE * 8  # frames of a block
WINDOW = MIB * 8  # frames of a piece


def blocks(frames: int) -> int:
    """Return the blocks of a bitmap of so many frames, 1 at least."""
    return max(-(-frames // BITS), 1)


def bits(ranges: Sequence[tuple[int, int]], frames: int) -> Iterator[bytearray]:
    """Yield a bitmap.

    Args:
        ranges: of the frames whose bits are set: (first, end) of each, in order.
        frames: of the whole bitmap, in whole blocks.
    """
    number = 0
    for start in range(0, blocks(frames) * BITS, WINDOW):
        end = min(start + WINDOW, blocks(frames) * BITS)
        piece = bytearray((end - start) // 8)
        while number < len(ranges) and ranges[number][0] < end:
            first, last = ranges[number]
            _set(piece, max(first, start) - start, min(last, end) - start)
            if last > end:
                break
            number += 1
        yield piece


def without(pieces: Iterable[bytearray], missing: Iterator[int]) -> Iterator[bytearray]:
    """Yield a bitmap in which some bits are not set.

    Args:
        pieces: of it, as bits() gives them; they are changed.
        missing: frames whose bits are not to be set, in order.
    """
    pfn = next(missing, -1)
    start = 0
    for piece in pieces:
        while start <= pfn < start + len(piece) * 8:
            piece[(pfn - start) // 8] &= ~(1 << pfn % 8)
            pfn = next(missing, -1)
        yield piece
        start += len(piece) * 8


def _set(piece: bytearray, first: int, end: int) -> None:
    """Set the bits first to end - 1."""
    while first < end and (first % 8 or end - first < 8):
        piece[first // 8] |= 1 << first % 8
        first += 1
    count = (end - first) // 8
    piece[first // 8 : first // 8 + count] = b"\xff" * count
    for number in range(first + count * 8, end):
        piece[number // 8] |= 1 << number % 8
