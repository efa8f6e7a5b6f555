"""One connection of a disk to its backend: negotiated, set up, let go.

Made by SupervisedDisk, one for each time the backend is connected to. The order is blkif.h's: what
the backend offers is read, ring and event channel are made and named, our state is Initialised, the
backend connects and describes the disk, our state is Connected. Where the grant table lacks room,
the connection has less of everything, down to a ring of one page.
Source: xen/include/public/io/blkif.h, "Startup".
"""

from ..abi import XenbusStateConnected
from ..errors import BackendError
from . import negotiate
from .blkif import X86_64
from .requests import INDIRECT_DEPTH, Buffers, Memory, Requests


class Pool:
    """Memory for the connections of a disk; each uses what the last one left.

    Args:
        buffers: how many requests' worth of buffers of our own to have, 0 for none.
    """

    def __init__(self, buffers):
        self.wanted_buffers = buffers
        self.memory = None
        self.buffers = None

    def give_back(self):
        """Free the memory; no connection uses it any more."""
        for memory in (self.memory, self.buffers):
            if memory is not None:
                memory.give_back()
        self.memory = self.buffers = None


class Connection:
    """One connection of a disk to its backend.

    Args:
        loop: Loop.
        grants: GrantTable.
        device: xenbus.Device, found.
        pool: Pool.
        limits: negotiate.Limits, what to use at most.

    Attributes, after connect(): requests, Requests; port, the event channel's; kick, the Signal of
    its events; limits as agreed on; properties, negotiate.Properties; persistent, whether the
    backend keeps buffers of ours mapped; notes, lines worth telling.
    """

    def __init__(self, loop, grants, device, pool, limits):
        self.loop = loop
        self.grants = grants
        self.device = device
        self.pool = pool
        self.limits = limits
        self.properties = None
        self.persistent = False
        self.requests = None
        self.port = 0
        self.kick = None
        self.notes = []

    async def connect(self):
        """Go from our Initialising and the backend's InitWait to Connected.

        Raises: BackendError, Timeout, XenstoreError, and XenError where the grant table has no room
        for a ring.
        """
        device = self.device
        offered, self.notes = await negotiate.read(device, negotiate.BEFORE)
        self.limits.agree_before(offered)
        self._make_ring()
        keys = negotiate.ring_keys(offered, self.requests.ring_refs())
        keys += self.limits.maxima().items()
        keys += [("event-channel", self.port), ("protocol", X86_64.protocol)]
        keys += [("feature-persistent", 1)] if self.persistent else []
        for key, value in keys:
            await device.write(key, value)
        await device.connect()
        await self._read_properties()
        await device.set_state(XenbusStateConnected)

    def _make_ring(self):
        limits, pool, remote = self.limits, self.pool, self.device.backend_id
        # As many entries for data as for the ring, at least.
        limits.lower("pages", _power(self.grants.most(2 * limits.pages) // 2))
        if pool.memory is None:
            pool.memory = Memory(limits.pages)
        limits.lower("pages", pool.memory.pages)
        self.requests = Requests(pool.memory, self.grants, remote, limits.pages, self.device.path)
        limits.lower("requests", self.requests.ring.slots)
        self.persistent = self._use_buffers()
        self.port = self.loop.evtchn.alloc_unbound(remote)
        self.kick = self.loop.port(self.port)

    async def _read_properties(self):
        device, limits = self.device, self.limits
        found, notes = await negotiate.read(device, negotiate.PROPERTIES)
        mode = await device.backend_text("mode")
        self.properties = properties = negotiate.Properties(found, mode, device.path)
        limits.agree_connected(found)
        if self.persistent and not properties.persistent:
            self.requests.leave_buffers()
            self.persistent = False
        if self.persistent:
            limits.lower("segments", negotiate.DIRECT)
        else:
            if limits.segments > negotiate.DIRECT:
                self._use_indirect()
            limits.lower("segments", self.grants.most(limits.segments))
        if limits.segments == 0:
            raise BackendError("%s: the grant table has no entry left for data" % device.path)
        self.notes += notes + limits.notes

    def _use_buffers(self):
        """Have buffers of our own for the backend to keep mapped. Returns whether there are any.

        They are granted before they are announced: from then on the backend may keep any of them.
        """
        pool = self.pool
        if not pool.wanted_buffers:
            return False
        if pool.buffers is None:
            pool.buffers = Buffers(pool.wanted_buffers)
        if not self.grants.fits(pool.buffers.pages):
            return False
        self.requests.use_buffers(pool.buffers)
        return True

    def _use_indirect(self):
        # Entries for the pages of segments, and for more frames than a direct request has.
        if self.grants.fits(INDIRECT_DEPTH + negotiate.DIRECT + 1):
            self.requests.use_indirect()
        else:
            self.limits.lower("segments", negotiate.DIRECT)

    def let_go(self):
        """End the event channel and the grants of this connection."""
        if self.port:
            self.loop.forget(self.port)
            self.loop.evtchn.close(self.port)
            self.port = 0
        if self.requests is not None:
            memory, buffers = self.requests.end()
            # Pages that the backend still has mapped are not used again.
            if memory:
                self.pool.memory = None
            if buffers:
                self.pool.buffers = None
            self.requests = None


def _power(n):
    """Return the largest power of two up to n, at least 1: the table refuses too few."""
    power = 1
    while 2 * power <= n:
        power *= 2
    return power
