"""A request out of the ring: the work that it asks for, or the status that answers it at once.

Used by the worker. The rule: nothing that a guest wrote is used before it is checked here, and a
private copy of it is checked. Limits and answers are those of Linux's blkback.
Source: xen/include/public/io/blkif.h; Linux drivers/block/xen-blkback/blkback.c.
"""

from __future__ import annotations

import functools
import struct
from dataclasses import dataclass
from operator import gt

from xenpv import abi
from xenpv.block.blkif import OP_NAMES, PAGE_SECTORS, Request

READ, WRITE = abi.BLKIF_OP_READ, abi.BLKIF_OP_WRITE
BARRIER, FLUSH = abi.BLKIF_OP_WRITE_BARRIER, abi.BLKIF_OP_FLUSH_DISKCACHE
DISCARD = abi.BLKIF_OP_DISCARD
KNOWN = (READ, WRITE, BARRIER, FLUSH, DISCARD)
WRITES = (WRITE, BARRIER, FLUSH, DISCARD)
DIRECT_SEGMENTS, INDIRECT_SEGMENTS = abi.BLKIF_MAX_SEGMENTS_PER_REQUEST, 256
SEGMENT_SIZE, FIRST, LAST = abi.BLKIF_SEGMENT_SIZEOF, 4, 5  # bytes
BLKIF_DISCARD_SECURE = 1

OKAY, ERROR, EOPNOTSUPP = (
    abi.BLKIF_RSP_OKAY,
    abi.BLKIF_RSP_ERROR,
    abi.BLKIF_RSP_EOPNOTSUPP,
)


class BadRequest(Exception):
    """A request that cannot be done. status: its answer; the message says what is wrong."""

    def __init__(self, message: str, status: int = ERROR) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Geometry:
    """The limits that requests are checked against.

    sectors: the disk's size in sectors of 512 bytes; unit: sectors of 512 bytes that can only be
    read and written together; scale: sectors of 512 bytes in one of the front end's sectors;
    segments, longest: segments and sectors of 512 bytes of one request, at most.
    """

    sectors: int
    unit: int
    readonly: bool
    scale: int = 1
    segments: int = INDIRECT_SEGMENTS
    longest: int = INDIRECT_SEGMENTS * PAGE_SECTORS


class Job:
    """A request that is to be done and answered.

    sector, count: of 512 bytes; refs, firsts, lasts: grant and first and last sector of each
    segment; whole: all segments are whole frames; alone: not to be joined with others; number: in
    the order of the connection's requests; status: the answer, None until it is done.
    """

    __slots__ = (
        *("id", "op", "sector", "count", "refs", "firsts", "lasts"),
        *("whole", "alone", "number", "status"),
    )

    def __init__(
        self,
        id: int,
        op: int,
        sector: int,
        count: int,
        refs: tuple[int, ...] = (),
        firsts: bytes = b"",
        lasts: bytes = b"",
        whole: bool = True,
        status: int | None = None,
    ) -> None:
        self.id = id
        self.op = op
        self.sector = sector
        self.count = count
        self.refs = refs
        self.firsts = firsts
        self.lasts = lasts
        self.whole = whole
        self.alone = False
        self.number = 0
        self.status = status

    def __str__(self) -> str:
        return f"{OP_NAMES[self.op]} of {self.count} sectors from {self.sector} on"


def check_kind(request: Request, geometry: Geometry) -> None:
    """Check a request before its indirect segments are read. Raises BadRequest."""
    if request.op not in KNOWN:
        raise BadRequest(f"operation {request.op} is not known", EOPNOTSUPP)
    if request.is_indirect and request.op not in (READ, WRITE):
        raise BadRequest(f"an indirect {OP_NAMES[request.op]}")
    if request.op == DISCARD:
        if request.flag & BLKIF_DISCARD_SECURE:
            raise BadRequest("a secure discard", EOPNOTSUPP)
    else:
        most = geometry.segments
        if not request.is_indirect and most > DIRECT_SEGMENTS:
            most = DIRECT_SEGMENTS
        least = 1 if request.op in (READ, WRITE) else 0
        if not least <= request.count <= most:
            raise BadRequest(
                f"{OP_NAMES[request.op]} with {request.count} segments; {least} to {most} expected"
            )
    if geometry.readonly and request.op in WRITES and (request.op != FLUSH or request.count):
        raise BadRequest(f"{OP_NAMES[request.op]} to a disk that is write-protected")


def job(request: Request, data: bytes, geometry: Geometry) -> Job:
    """Check the rest of a request and make a job of it.

    Args:
        request: checked by check_kind().
        data: a private copy of its segments, as many as it announces.

    Raises: BadRequest.
    """
    if geometry.scale != 1:
        request, data = _in_sectors_of_512(request, data, geometry.scale)
    number = len(data) // SEGMENT_SIZE
    if request.op == DISCARD:
        done = Job(request.id, request.op, request.sector, request.count)
    elif not number:
        return Job(request.id, request.op, 0, 0)
    else:
        refs = _references(number).unpack(data)
        firsts, lasts = data[FIRST::SEGMENT_SIZE], data[LAST::SEGMENT_SIZE]
        whole = firsts.count(0) == lasts.count(PAGE_SECTORS - 1) == number
        if whole:
            count = number * PAGE_SECTORS
        elif max(lasts) >= PAGE_SECTORS or any(map(gt, firsts, lasts)):
            bad = (s for s in zip(firsts, lasts) if s[0] > s[1] or s[1] >= PAGE_SECTORS)
            raise BadRequest("a segment from sector {} to {} of a page".format(*next(bad)))
        else:
            count = sum(lasts) - sum(firsts) + number
        done = Job(request.id, request.op, request.sector, count, refs, firsts, lasts, whole)
        if count > geometry.longest:
            raise BadRequest(f"{done}; up to {geometry.longest} expected")
    if done.sector + done.count > geometry.sectors:
        raise BadRequest(f"{done}, but the disk has {geometry.sectors}")
    if done.sector % geometry.unit or done.count % geometry.unit:
        raise BadRequest(f"{done}, but the disk is made of units of {geometry.unit}")
    return done


@functools.cache
def _references(number: int) -> struct.Struct:
    """Unpack the grants of `number` segments."""
    return struct.Struct("<" + "I4x" * number)


def _in_sectors_of_512(request: Request, data: bytes, scale: int) -> tuple[Request, bytes]:
    """Convert a request of larger sectors. A segment beyond its page stays beyond it."""
    count = request.count * scale if request.op == DISCARD else request.count
    converted = Request(request.op, request.id, request.sector * scale, count)
    segments = bytearray(data)
    segments[FIRST::SEGMENT_SIZE] = bytes(min(n * scale, 255) for n in data[FIRST::SEGMENT_SIZE])
    lasts = (min((n + 1) * scale - 1, 255) for n in data[LAST::SEGMENT_SIZE])
    segments[LAST::SEGMENT_SIZE] = bytes(lasts)
    return converted, bytes(segments)
