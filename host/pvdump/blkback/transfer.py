"""A read or write: jobs that continue each other on the disk, on the guest's own memory.

Made by the worker, which does it or, where the disk takes several at a time, has it begun.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from xenpv.block.blkif import SECTOR

from . import ports
from .frames import Pool, parts
from .request import READ, Job
from .sink import Sink

JOINED = 256  # frames of one transfer, at most


@dataclass(slots=True, eq=False)
class Transfer:
    """offset, size: bytes; spare: to be unmapped when it is over; error: what became of it.

    vectors: the memory as the queue names it, of frames that are kept; else that is in buffers.
    """

    sink: Sink
    jobs: list[Job]
    reads: bool
    offset: int
    size: int
    pool: Pool
    buffers: list[memoryview]
    spare: ports.Frames | None = None
    vectors: bytes = b""
    error: Exception | None = None

    def do(self) -> None:
        """Now, and wait for it."""
        buffers = self.buffers or self.pool.kept(_references(self.jobs))
        try:
            (self.sink.read if self.reads else self.sink.write)(self.offset, buffers)
        except Exception as error:
            self.error = error

    def end(self) -> None:
        """Give the memory back. Raises what went wrong."""
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
    """Jobs of one kind, each of which continues the one before. Raises Refused, Stalled."""
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
    """Does transfers beside each other; wakes the worker when some are over.

    depth: how many can be under way.
    """

    depth: int

    def begin(self, transfers: Sequence[Transfer]) -> int:
        """Returns how many were begun, the first ones; the others are to be done in another way."""

    def vector(self, memory: memoryview) -> bytes:
        """How it names memory; what it names in a transfer is these, joined."""

    def over(self) -> list[Transfer]:
        """Those that have ended since this was last asked."""

    def close(self) -> None: ...
