"""A read or write of the sink: jobs that continue each other on the disk, on the guest's memory.

The worker makes it and does it, or has a queue begin it where the disk takes several at a time.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Protocol

from xenpv.block.blkif import SECTOR

from . import ports
from .frames import Pool, parts
from .request import READ, Job
from .sink import Sink

JOINED = 256  # frames of one transfer, at most


class Transfer:
    """One read or write.

    reads: whether it reads; offset, size: bytes; buffers: the memory, unless a queue names it by
    `vectors`; spare: frames to unmap when it is over; error: why it failed, or None.
    """

    __slots__ = (
        *("sink", "jobs", "reads", "offset", "size", "pool"),
        *("buffers", "spare", "vectors", "error"),
    )

    def __init__(
        self,
        sink: Sink,
        jobs: list[Job],
        reads: bool,
        offset: int,
        size: int,
        pool: Pool,
        buffers: list[memoryview],
    ) -> None:
        self.sink = sink
        self.jobs = jobs
        self.reads = reads
        self.offset = offset
        self.size = size
        self.pool = pool
        self.buffers = buffers
        self.spare: ports.MappedFrames | None = None
        self.vectors = b""
        self.error: Exception | None = None

    def do(self) -> None:
        """Do it now and wait for its end. An error is kept for end()."""
        buffers = self.buffers or self.pool.kept(_references(self.jobs))
        try:
            (self.sink.read if self.reads else self.sink.write)(self.offset, buffers)
        except Exception as error:
            self.error = error

    def end(self) -> None:
        """Give the memory back. Raises the error."""
        self.buffers = []
        if self.spare is not None:
            self.spare.unmap()
        if self.error is not None:
            raise self.error


def _references(jobs: Sequence[Job]) -> Sequence[int]:
    if len(jobs) == 1:
        return jobs[0].refs
    return tuple(itertools.chain.from_iterable(job.refs for job in jobs))


def prepare(jobs: list[Job], sink: Sink, pool: Pool) -> Transfer:
    """Make one transfer of jobs of one kind, each of which continues the one before.

    Raises: Refused, Stalled.
    """
    first = jobs[0]
    reads, whole, count = first.op == READ, first.whole, first.count
    if len(jobs) > 1:
        whole, count = all(job.whole for job in jobs), sum(job.count for job in jobs)
    move = Transfer(sink, jobs, reads, first.sector * SECTOR, count * SECTOR, pool, [])
    if whole:
        names = [pool.name(job.refs, reads) for job in jobs]
        if all(names):
            move.vectors = b"".join(names)
            return move
    move.buffers, move.spare = pool.take(_references(jobs), reads)
    if not whole:
        firsts, lasts = (b"".join(job.firsts for job in jobs), b"".join(job.lasts for job in jobs))
        move.buffers = parts(move.buffers, firsts, lasts)
    return move


class Queue(Protocol):
    """Does transfers beside each other, and wakes the worker when some have ended.

    depth: how many can be under way.
    """

    depth: int

    def begin(self, transfers: Sequence[Transfer]) -> int:
        """Begin the first transfers. Returns how many were begun; the caller does the others."""

    def vector(self, memory: memoryview) -> bytes:
        """Return a name of memory; a transfer's `vectors` are such names, joined."""

    def over(self) -> list[Transfer]:
        """Return the transfers that have ended since the last call."""

    def close(self) -> None:
        """Give back what the queue took."""
