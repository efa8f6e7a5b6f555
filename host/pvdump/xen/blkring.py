"""The backend's end of a one-page blkif ring, and requests as read out of it.

Used by blkback.py. The rule: a request is copied out of the shared page once and only the copy is
looked at; a front end that announces more requests than the ring holds has its ring halted, as
Linux does. Source: Xen public/io/ring.h, public/io/blkif.h (x86_64 layout).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from xenpv import abi

from .gnttab import Mapping

U32 = 0xFFFFFFFF
SLOTS = 32
STRIDE = abi.BLKIF_REQUEST_SIZEOF


class RingHalted(Exception):
    """The front end broke the ring's rules."""


@dataclass(frozen=True)
class Segment:
    gref: int
    first: int  # sectors of the page
    last: int


@dataclass(frozen=True, eq=False)
class Request:
    operation: int
    nr_segments: int
    id: int
    sector: int
    segments: tuple[Segment, ...]

    @property
    def sectors(self) -> int:
        return sum(segment.last - segment.first + 1 for segment in self.segments)

    def wellformed(self) -> bool:
        """What Linux's blkback asks of a READ or WRITE."""
        sane = all(segment.first <= segment.last < 8 for segment in self.segments)
        return sane and 0 < self.nr_segments <= abi.BLKIF_MAX_SEGMENTS_PER_REQUEST


def parse(data: bytes) -> Request:
    operation, count, _handle, number, sector = struct.unpack_from("<BBH4xQQ", data)
    segments = tuple(
        Segment(*struct.unpack_from("<IBB", data, abi.BLKIF_REQUEST_SEG + 8 * i))
        for i in range(min(count, abi.BLKIF_MAX_SEGMENTS_PER_REQUEST))
    )
    return Request(operation, count, number, sector, segments)


class BackRing:
    """page: the front end's ring page, mapped."""

    def __init__(self, page: Mapping) -> None:
        self.page = page
        self.halted = False
        # An earlier backend may have served this page: go on from what it published.
        self.req_cons = self.rsp_prod = self._read(abi.SRING_RSP_PROD)

    def _read(self, offset: int) -> int:
        return struct.unpack_from("<I", self.page.view, offset)[0]

    def _write(self, offset: int, value: int) -> None:
        struct.pack_into("<I", self.page.view, offset, value & U32)

    def _slot(self, index: int) -> int:
        return abi.SRING_RING + index % SLOTS * STRIDE

    def take(self) -> Request | None:
        """The next request; None after asking to be told of another. Raises RingHalted."""
        prod = self._read(abi.SRING_REQ_PROD)
        if (prod - self.rsp_prod) & U32 > SLOTS:
            self.halted = True
            raise RingHalted(f"req_prod 0x{prod:x} with rsp_prod 0x{self.rsp_prod:x}")
        if prod == self.req_cons:
            self._write(abi.SRING_REQ_EVENT, self.req_cons + 1)
            return None
        at = self._slot(self.req_cons)
        self.req_cons = (self.req_cons + 1) & U32
        return parse(bytes(self.page.view[at : at + STRIDE]))

    def respond(self, number: int, operation: int, status: int) -> None:
        """Write the next response; push() publishes it."""
        at = self._slot(self.rsp_prod)
        struct.pack_into("<QBxh4x", self.page.view, at, number, operation, status)
        self.rsp_prod = (self.rsp_prod + 1) & U32

    def push(self, extra: int = 0) -> bool:
        """Publish the responses, and `extra` that are none. Returns whether to tell the front."""
        old = self._read(abi.SRING_RSP_PROD)
        self._write(abi.SRING_RSP_PROD, self.rsp_prod + extra)
        event = self._read(abi.SRING_RSP_EVENT)
        return (self.rsp_prod + extra - event) & U32 < (self.rsp_prod + extra - old) & U32
