"""The ring's pages as xenpv.block.ring sees them, on mapped frames.

A device makes it at connect. Rules of the single accesses: an item of a memoryview of 32-bit words
is fetched and stored by CPython with a copy of four bytes, which is one move on x86; mb() must be a
fence, since x86 lets a load pass an older store, and then both ends may think that the other one
will look. Taking a free lock is a compare-and-swap with the lock prefix in every CPython on x86 (a
semaphore's, or since 3.13 its own), which Intel and AMD define as a full fence.
Source: CPython Objects/memoryobject.c (unpack_single), Python/thread_pthread.h; Intel SDM 3A 8.2.5.
"""

from __future__ import annotations

import threading

from xenpv.abi import PAGE_SIZE, SRING_RING

from .ports import MappedFrames


class Scattered:
    """Pieces of memory that are read and written as if they were one."""

    def __init__(self, pieces: list[memoryview]) -> None:
        self._pieces = pieces

    def __getitem__(self, where: slice) -> bytes:
        return b"".join(bytes(part) for part in self._parts(where))

    def __setitem__(self, where: slice, data: bytes) -> None:
        for part in self._parts(where):
            part[:] = data[: len(part)]
            data = data[len(part) :]

    def _parts(self, where: slice) -> list[memoryview]:
        found, begin = [], 0
        for piece in self._pieces:
            start, end = max(where.start - begin, 0), min(where.stop - begin, len(piece))
            if start < end:
                found.append(piece[start:end])
            begin += len(piece)
        return found


class RingMemory:
    """The memory of a ring. frames: of the ring; the caller unmaps them."""

    def __init__(self, frames: MappedFrames, pages: int) -> None:
        pieces = frames.slices(0, pages * PAGE_SIZE)
        self.view: memoryview | Scattered = pieces[0] if len(pieces) == 1 else Scattered(pieces)
        self._words = pieces[0][:SRING_RING].cast("I")
        self._lock = threading.Lock()

    def rd32(self, offset: int) -> int:
        """Return the u32 at an offset."""
        return self._words[offset // 4]

    def wr32(self, offset: int, value: int) -> None:
        """Write a u32 at an offset."""
        self._words[offset // 4] = value

    def mb(self) -> None:
        """Order all earlier accesses before all later ones."""
        with self._lock:
            pass

    def close(self) -> None:
        """Let go of the memory, so that the caller can unmap it."""
        self._words.release()
