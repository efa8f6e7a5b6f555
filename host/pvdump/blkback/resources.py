"""What a worker holds of Xen while its front end is connected, enough for a full ring.

A device takes it all when it connects; the worker gives it back when it disconnects.
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
class Resources:
    """One connection's resources.

    layout: of the ring's entries; frames, memory: of the ring; queue: of the sink's I/O, or None
    where it is done one after the other; pool: frames of the requests' data.
    """

    layout: Layout
    grants: ports.Grants
    frames: ports.MappedFrames
    memory: RingMemory
    ring: BackRing
    channel: ports.Channel
    queue: Queue | None
    pool: Pool

    def close(self) -> None:
        """Give everything back, in the reverse order of taking it."""
        self.pool.close()
        if self.queue is not None:
            self.queue.close()
        self.memory.close()
        self.frames.unmap()
        self.channel.close()
        self.grants.close()
