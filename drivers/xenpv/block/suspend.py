"""Suspension of a disk: it leaves its backend, and is connected to the next one.

Used by xenpv.suspend; a module of its own, since a crash kernel is never suspended. Rules: what the
backend has not answered stands in line, and the next one gets it first and in order; the memory of
the rings is used again; both ways are bounded, in all by less than the 60 s that a toolstack waits.
"""

from ..errors import XenError
from ..loop import SECOND
from .supervise import AWAY, BREATHER, CLOSE_TIMEOUT

# How long a disk that is being connected or closed has for that, and a backend for its answers.
SETTLE = 10 * SECOND


async def suspend(disk):
    """Leave the backend until resume(). One that does not close is left all the same.

    Args:
        disk: front.BlkFront.
    """
    loop, device = disk.loop, disk.device
    disk.suspended = True
    until = loop.now() + SETTLE
    while disk.changing:
        if loop.now() >= until:
            device.allow(0)
        await loop.sleep(BREATHER)
    if disk.connection is None:
        return
    queue = disk.queue
    disk.interrupted = disk.away = queue.held = True
    while queue.in_flight() and loop.now() < until:
        await queue.changed.wait(until)
    device.allow(CLOSE_TIMEOUT)
    try:
        await device.close()
    except (XenError, MemoryError) as e:
        disk.tell("left for a suspension: %s" % e)
    disk.let_go()
    queue.held = False


async def resume(disk):
    """Connect again after suspend(), and do first what was not answered.

    Where that fails, the disk is not used any more, and its error says so.
    """
    try:
        if disk.interrupted and not disk.queue.dead:
            disk.back_by = disk.loop.now() + AWAY
            await disk.come_back("a suspension has ended the connection")
    finally:
        if disk.interrupted:
            disk.interrupted = disk.away = False
        disk.suspended = False
    disk.queue.admit()
    disk.queue.changed.set()
