"""A read or write: jobs that continue each other on the disk, on the guest's own memory.

Made by the worker, which does it or, where the disk takes several at a time, has it begun.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from xenpv.blkif import SECTOR

from . import ports
from .frames import Pool, parts
from .request import READ, Job
from .sink import Sink


@dataclass(slots=True, eq=False)
class Transfer:
    """offset: bytes; spare: to be unmapped when it is over; error: what became of it.

    vectors: the buffers as the queue names them, or nothing.
    """

    sink: Sink
    jobs: list[Job]
    reads: bool
    offset: int
    buffers: list[memoryview]
    spare: ports.Frames | None
    vectors: bytes = b""
    error: Exception | None = None

    def do(self) -> None:
        """Now, and wait for it."""
        try:
            (self.sink.read if self.reads else self.sink.write)(self.offset, self.buffers)
        except Exception as error:
            self.error = error

    def end(self) -> None:
        """Give the memory back. Raises what went wrong."""
        self.buffers = []
        if self.spare is not None:
            self.spare.unmap()
        if self.error is not None:
            raise self.error


def prepare(jobs: list[Job], sink: Sink, pool: Pool) -> Transfer:
    """Jobs of one kind, each of which continues the one before. Raises Refused, Stalled."""
    first = jobs[0]
    reads, offset = first.op == READ, first.sector * SECTOR
    if len(jobs) == 1:
        refs, whole = first.refs, first.whole
    else:
        refs = tuple(itertools.chain.from_iterable(job.refs for job in jobs))
        whole = all(job.whole for job in jobs)
    buffers, spare = pool.take(refs, reads)
    vectors = b""
    if whole:
        if spare is None:
            vectors = pool.vectors(refs)
    else:
        firsts, lasts = (b"".join(job.firsts for job in jobs), b"".join(job.lasts for job in jobs))
        buffers = parts(buffers, firsts, lasts)
    return Transfer(sink, jobs, reads, offset, buffers, spare, vectors)


class Queue(Protocol):
    """Does transfers beside each other; wakes the worker when some are over.

    depth: how many can be under way.
    """

    depth: int

    def begin(self, transfers: Sequence[Transfer]) -> int:
        """Returns how many were begun, the first ones; the others are to be done in another way."""

    def vector(self, memory: memoryview) -> bytes:
        """How it names memory. What it names in a transfer is these, joined."""

    def over(self) -> list[Transfer]:
        """Those that have ended since this was last asked."""

    def close(self) -> None: ...
