"""What a disk was asked and what became of it, over all its connections.

Kept by the worker, shown by `pvdump blkback show`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from xenpv.block.blkif import OP_NAMES

from .request import DISCARD, OKAY, READ


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

    def add(self, op: int, size: int, status: int, number: int = 1) -> None:
        """Requests of `size` bytes together are over; bytes count when all is well."""
        name = OP_NAMES[op]
        self.requests[name] = self.requests.get(name, 0) + number
        if status != OKAY:
            return
        if op == READ:
            self.read += size
        elif op != DISCARD:
            self.written += size
