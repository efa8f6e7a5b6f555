"""What a disk was asked and what became of it, over all its connections.

Kept by the worker, shown by `pvdump blkback show`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from xenpv.blkif import OP_NAMES, SECTOR

from .request import DISCARD, OKAY, READ, Job


@dataclass
class Counts:
    """Since the device was made. joined: I/Os that served more than one request; bytes."""

    requests: dict[str, int] = field(default_factory=dict)
    read: int = 0
    written: int = 0
    ios: int = 0
    joined: int = 0
    errors: int = 0
    stalls: int = 0

    def add(self, job: Job) -> None:
        """A job that is over; bytes count when all is well."""
        name = OP_NAMES[job.op]
        self.requests[name] = self.requests.get(name, 0) + 1
        if job.status != OKAY:
            return
        if job.op == READ:
            self.read += job.count * SECTOR
        elif job.op != DISCARD:
            self.written += job.count * SECTOR
