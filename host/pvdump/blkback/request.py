"""A request out of the ring, judged: what is to be done, or the status that answers it at once.

Used by the worker. The rule: nothing a guest wrote goes further before it is checked here, and it
is checked in a private copy. Limits and answers are those of Linux's blkback.
Source: xen/include/public/io/blkif.h; Linux drivers/block/xen-blkback/blkback.c.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from operator import gt

from xenpv import abi
from xenpv.blkif import OP_NAMES, PAGE_SECTORS, SEGMENT, SEGMENTS_A_PAGE, Request

READ, WRITE = abi.BLKIF_OP_READ, abi.BLKIF_OP_WRITE
BARRIER, FLUSH = abi.BLKIF_OP_WRITE_BARRIER, abi.BLKIF_OP_FLUSH_DISKCACHE
DISCARD = abi.BLKIF_OP_DISCARD
KNOWN = (READ, WRITE, BARRIER, FLUSH, DISCARD)
WRITES = (WRITE, BARRIER, FLUSH, DISCARD)
INDIRECT_SEGMENTS = 256
BLKIF_DISCARD_SECURE = 1

OKAY, ERROR, EOPNOTSUPP = (
    abi.BLKIF_RSP_OKAY,
    abi.BLKIF_RSP_ERROR,
    abi.BLKIF_RSP_EOPNOTSUPP,
)


class BadRequest(Exception):
    """status: the answer; the message says what is wrong."""

    def __init__(self, message: str, status: int = ERROR) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Geometry:
    """What requests are held against. sectors: of 512 bytes; unit: sectors that go together."""

    sectors: int
    unit: int
    readonly: bool


@dataclass(slots=True, eq=False)
class Job:
    """A request to be answered. refs, firsts, lasts: grant and sectors of each segment.

    status: the answer to one that cannot be done, None for one that can.
    """

    id: int
    op: int
    sector: int
    count: int  # sectors
    refs: tuple[int, ...] = ()
    firsts: tuple[int, ...] = ()
    lasts: tuple[int, ...] = ()
    status: int | None = None

    def __str__(self) -> str:
        return f"{OP_NAMES[self.op]} of {self.count} sectors from {self.sector} on"


def check_kind(request: Request, geometry: Geometry) -> None:
    """What can be said before an indirect request's segments are read. Raises BadRequest."""
    if request.op not in KNOWN:
        raise BadRequest(f"operation {request.op} is not known", EOPNOTSUPP)
    if request.is_indirect and request.op not in (READ, WRITE):
        raise BadRequest(f"an indirect {OP_NAMES[request.op]}")
    if request.op == DISCARD:
        if request.flag & BLKIF_DISCARD_SECURE:
            raise BadRequest("a secure discard", EOPNOTSUPP)
    else:
        most = INDIRECT_SEGMENTS if request.is_indirect else abi.BLKIF_MAX_SEGMENTS_PER_REQUEST
        least = 1 if request.op in (READ, WRITE) else 0
        if not least <= request.count <= most:
            raise BadRequest(
                f"{OP_NAMES[request.op]} with {request.count} segments; {least} to {most} expected"
            )
    if geometry.readonly and request.op in WRITES and (request.op != FLUSH or request.count):
        raise BadRequest(f"{OP_NAMES[request.op]} to a disk that is write-protected")


def pages_of_segments(request: Request) -> int:
    """How many pages an indirect request's segments take."""
    return -(-int(request.count) // SEGMENTS_A_PAGE)


def job(request: Request, segments: list[tuple[int, int, int]], geometry: Geometry) -> Job:
    """The request as it is to be done. Raises BadRequest.

    segments: (gref, first_sect, last_sect) each, as many as it announces.
    """
    if request.op == DISCARD:
        done = Job(request.id, DISCARD, request.sector, request.count)
    elif not segments:
        return Job(request.id, request.op, 0, 0)
    else:
        refs, firsts, lasts = zip(*segments, strict=True)
        if max(lasts) >= PAGE_SECTORS or any(map(gt, firsts, lasts)):
            bad = next(s for s in segments if s[1] > s[2] or s[2] >= PAGE_SECTORS)
            raise BadRequest(f"a segment from sector {bad[1]} to {bad[2]} of a page")
        count = sum(lasts) - sum(firsts) + len(segments)
        done = Job(request.id, request.op, request.sector, count, refs, firsts, lasts)
    if done.sector + done.count > geometry.sectors:
        raise BadRequest(f"{done}, but the disk has {geometry.sectors}")
    if done.sector % geometry.unit or done.count % geometry.unit:
        raise BadRequest(f"{done}, but the disk is made of units of {geometry.unit}")
    return done


def segments_in(data: bytes) -> list[tuple[int, int, int]]:
    """Segments out of a private copy of an indirect request's pages."""
    return list(struct.iter_unpack(SEGMENT, data))
