"""The resources of Xen that a connected worker holds, enough for a full ring.

A device takes it all when it connects, or nothing; the worker gives it back when it disconnects.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass

from xenpv.block.blkif import Layout
from xenpv.block.ring import BackRing

from . import ports
from .frames import Pool
from .negotiate import Front
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


def take(
    xen: ports.Xen,
    domid: int,
    front: Front,
    make_ring: Callable[[RingMemory, Front], BackRing],
    make_queue: Callable[[ports.Channel], Queue | None],
) -> Resources:
    """Take all that a connection needs, or nothing.

    Args:
        front: what the front end asks for.
        make_ring: makes the ring on its mapped memory.
        make_queue: makes the queue of the sink's I/O; a channel wakes its worker.

    Raises: Refused, Stalled.
    """
    with contextlib.ExitStack() as undo:
        grants = xen.grants(domid)
        undo.callback(grants.close)
        frames = grants.map(front.refs, True)
        undo.callback(frames.unmap)
        memory = RingMemory(frames, len(front.refs))
        undo.callback(memory.close)
        ring = make_ring(memory, front)
        channel = xen.bind(domid, front.port)
        undo.callback(channel.close)
        queue = make_queue(channel)
        undo.pop_all()
    pool = Pool(grants, front.persistent, queue.vector if queue else None)
    return Resources(front.layout, grants, frames, memory, ring, channel, queue, pool)
