"""The frames that requests name, mapped: for one I/O, or kept where the front end lends them.

Used by the worker, one for each connection. The rules: frames are mapped together, so one call to
Xen serves many requests; a front end that speaks of persistent grants never takes one back while
it is connected, so its frames stay mapped, writable, up to KEPT of them; what it lends to be read
only is mapped as if it had not spoken of them.
Source: xen/include/public/io/blkif.h, feature-persistent.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from xenpv.abi import PAGE_SIZE
from xenpv.blkif import SECTOR

from . import ports

KEPT = 4096  # frames
Place = tuple[ports.Frames, int]  # where a frame is mapped: which of them, its first byte


class Pool:
    """persistent: keep what is mapped."""

    def __init__(self, grants: ports.Grants, persistent: bool) -> None:
        self._grants = grants
        self._persistent = persistent
        self._kept: dict[int, Place] = {}

    def __len__(self) -> int:
        """How many frames are kept."""
        return len(self._kept)

    def take(self, refs: Sequence[int], writable: bool) -> tuple[list[Place], ports.Frames | None]:
        """Where each of the frames is mapped, and what is to be unmapped when the I/O is over.

        Raises Refused, Stalled.
        """
        if self._keep(refs, writable):
            return [self._kept[ref] for ref in refs], None
        frames = self._grants.map(refs, writable)
        return [(frames, at) for at in range(0, len(refs) * PAGE_SIZE, PAGE_SIZE)], frames

    def _keep(self, refs: Sequence[int], writable: bool) -> bool:
        """Have the frames among the kept ones. Returns False when they cannot be there."""
        if not self._persistent:
            return False
        missing = list(dict.fromkeys(ref for ref in refs if ref not in self._kept))
        if len(self._kept) + len(missing) > KEPT:
            return False
        if missing:
            try:
                frames = self._grants.map(missing, True)
            except ports.Refused:
                if writable:
                    raise
                return False
            self._kept |= {ref: (frames, i * PAGE_SIZE) for i, ref in enumerate(missing)}
        return True

    def close(self) -> None:
        for frames in {id(frames): frames for frames, _ in self._kept.values()}.values():
            frames.unmap()
        self._kept.clear()


def buffers(
    places: Iterable[Place], firsts: Iterable[int], lasts: Iterable[int]
) -> list[memoryview]:
    """The memory of segments in their order, neighbours joined. firsts, lasts: sectors."""
    found: list[memoryview] = []
    frames: ports.Frames | None = None
    start = end = 0
    for (at_frames, at), first, last in zip(places, firsts, lasts, strict=True):
        begin = at + first * SECTOR
        if at_frames is not frames or begin != end:
            if frames is not None:
                found += frames.slices(start, end)
            frames, start = at_frames, begin
        end = at + (last + 1) * SECTOR
    if frames is not None:
        found += frames.slices(start, end)
    return found
