"""The counts of a disk's requests and their results, over all its connections.

The worker counts them; they are shown by `pvdump blkback show`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from xenpv.block.blkif import OP_NAMES

from .request import DISCARD, OKAY, READ


@dataclass
class Counts:
    """Counts since the device was made.

    requests: by operation; read, written: bytes; ios: reads and writes of the sink; joined: those
    of more than one request; stalls: steps that had to wait for memory or the disk.
    """

    requests: dict[str, int] = field(default_factory=dict)
    read: int = 0
    written: int = 0
    ios: int = 0
    joined: int = 0
    errors: int = 0
    stalls: int = 0

    def add(self, op: int, size: int, status: int, number: int = 1) -> None:
        """Count `number` requests of `size` bytes together; bytes count only if they succeeded."""
        name = OP_NAMES[op]
        self.requests[name] = self.requests.get(name, 0) + number
        if status != OKAY:
            return
        if op == READ:
            self.read += size
        elif op != DISCARD:
            self.written += size
