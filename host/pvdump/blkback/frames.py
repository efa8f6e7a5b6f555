"""The frames that requests name, mapped for one I/O, or kept mapped.

Used by the worker; each connection has its own. The rules: frames are mapped together, so that one
call to Xen serves many requests; a front end with persistent grants takes none back while it is
connected, so its frames stay mapped, writable, up to KEPT of them; a frame that it grants for
reading only is mapped for one I/O. A request may have 256 frames, so loops over them run in C.
Source: xen/include/public/io/blkif.h, feature-persistent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from xenpv.abi import PAGE_SIZE
from xenpv.block.blkif import SECTOR

from . import ports

KEPT = 4096  # frames


class Pool:
    """Maps one guest's frames.

    grants: the guest's; persistent: whether to keep frames mapped; vector: names memory for the
    queue of I/O, None where there is no queue.
    """

    def __init__(
        self,
        grants: ports.Grants,
        persistent: bool,
        vector: Callable[[memoryview], bytes] | None = None,
    ) -> None:
        self._grants = grants
        self._persistent = persistent
        self._vector = vector
        self._kept: dict[int, memoryview] = {}
        self._vectors: dict[int, bytes] = {}
        self._mapped: list[ports.MappedFrames] = []  # of the kept frames

    def __len__(self) -> int:
        """Return how many frames are kept."""
        return len(self._kept)

    def take(
        self, refs: Sequence[int], writable: bool
    ) -> tuple[list[memoryview], ports.MappedFrames | None]:
        """Map frames for an I/O.

        Returns: their memory in pieces, and what to unmap when the I/O is over, or None.
        Raises: Refused, Stalled.
        """
        if self._persistent:
            try:
                return self.kept(refs), None
            except KeyError:
                if self._keep(refs, writable):
                    return self.kept(refs), None
        frames = self._grants.map(refs, writable)
        return frames.slices(0, len(refs) * PAGE_SIZE), frames

    def name(self, refs: Sequence[int], writable: bool) -> bytes:
        """Return iovecs of frames that are kept, or b"" if they are not kept or no queue is used.

        Raises: Refused, Stalled.
        """
        if not self._persistent or self._vector is None:
            return b""
        try:
            return b"".join(map(self._vectors.__getitem__, refs))
        except KeyError:
            kept = self._keep(refs, writable)
            return b"".join(map(self._vectors.__getitem__, refs)) if kept else b""

    def kept(self, refs: Iterable[int]) -> list[memoryview]:
        """Return the memory of frames that are kept. Raises KeyError for others."""
        return list(map(self._kept.__getitem__, refs))

    def _keep(self, refs: Sequence[int], writable: bool) -> bool:
        """Keep frames. Returns whether all of them are kept now."""
        missing = list(set(refs) - self._kept.keys())
        if len(self._kept) + len(missing) > KEPT:
            return False
        try:
            frames = self._grants.map(missing, True)
        except ports.Refused:
            if writable:
                raise
            return False
        self._mapped.append(frames)
        for i, ref in enumerate(missing):
            (view,) = frames.slices(i * PAGE_SIZE, (i + 1) * PAGE_SIZE)
            self._kept[ref] = view
            if self._vector:
                self._vectors[ref] = self._vector(view)
        return True

    def close(self) -> None:
        """Unmap all kept frames."""
        self._kept.clear()
        self._vectors.clear()
        for frames in self._mapped:
            frames.unmap()
        self._mapped.clear()


def parts(
    pieces: list[memoryview], firsts: Iterable[int], lasts: Iterable[int]
) -> list[memoryview]:
    """Return the memory of segments that are not whole frames.

    Args:
        pieces: of the frames, in order.
        firsts, lasts: of each frame, sectors of 512 bytes.
    """
    found: list[memoryview] = []
    at, number = 0, 0
    for first, last in zip(firsts, lasts):
        if at == len(pieces[number]):
            at, number = 0, number + 1
        found.append(pieces[number][at + first * SECTOR : at + (last + 1) * SECTOR])
        at += PAGE_SIZE
    return found
