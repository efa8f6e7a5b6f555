"""What a worker holds of Xen while its front end is connected, taken at connect for a full ring.

Made by a device, closed by the worker.
"""

from __future__ import annotations

from dataclasses import dataclass

from xenpv.block.blkif import Layout
from xenpv.block.ring import BackRing

from . import ports
from .frames import Pool
from .ringmemory import RingMemory
from .transfer import Queue


@dataclass
class Connection:
    layout: Layout
    grants: ports.Grants
    frames: ports.Frames
    memory: RingMemory
    ring: BackRing
    channel: ports.Channel
    queue: Queue | None
    pool: Pool

    def close(self) -> None:
        """In the reverse order of how it was taken."""
        self.pool.close()
        if self.queue is not None:
            self.queue.close()
        self.memory.close()
        self.frames.unmap()
        self.channel.close()
        self.grants.close()
