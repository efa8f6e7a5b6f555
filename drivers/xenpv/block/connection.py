"""The connection of a block front end to its backend: negotiated, made, let go.

Made by BlkFront, once for each time a backend is connected. The order is blkif.h's: what the
backend offers is read, the ring and an event channel are made and named, our state is Initialised,
the backend connects and says what the disk is, our state is Connected. Whatever the grant table has
no room for is done without, down to a ring of one page.
Source: xen/include/public/io/blkif.h, "Startup".
"""

from ..abi import XenbusStateConnected
from ..errors import BackendError
from . import negotiate
from .blkif import X86_64
from .requests import INDIRECT_DEPTH, Buffers, Link, Memory


class Pool:
    """Memory for the connections of one front end, kept from one to the next.

    buffers: how many requests' worth of buffers of our own, 0 for none.
    """

    def __init__(self, buffers):
        self.wanted_buffers = buffers
        self.memory = None
        self.buffers = None


class Attachment:
    """device: xenbus.Device, found; pool: Pool; limits: Limits, what to use at most.

    After connect(): link, port, kick (the Signal of its events), limits as agreed on, properties;
    persistent: whether the backend keeps buffers of ours mapped; notes: what is worth telling.
    """

    def __init__(self, loop, grants, device, pool, limits):
        self.loop = loop
        self.grants = grants
        self.device = device
        self.pool = pool
        self.limits = limits
        self.properties = None
        self.persistent = False
        self.link = None
        self.port = 0
        self.kick = None
        self.notes = []

    async def connect(self):
        """From our Initialising, the backend's InitWait, to Connected. Raises XenError."""
        device = self.device
        offered, self.notes = await negotiate.read(device, negotiate.BEFORE)
        self.limits.agree_ring(offered)
        self._make_ring()
        keys = negotiate.ring_keys(offered, self.link.ring_refs())
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
        self.link = Link(pool.memory, self.grants, remote, limits.pages, self.device.path)
        limits.lower("requests", self.link.ring.slots)
        self.persistent = self._use_buffers()
        self.port = self.loop.evtchn.alloc_unbound(remote)
        self.kick = self.loop.port(self.port)

    async def _read_properties(self):
        device, limits = self.device, self.limits
        found, notes = await negotiate.read(device, negotiate.PROPERTIES)
        mode = await device.backend_text("mode")
        self.properties = properties = negotiate.Properties(found, mode, device.path)
        limits.agree_requests(found)
        if self.persistent and not properties.persistent:
            self.link.leave_buffers()
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
        """Offer buffers of our own, to be kept mapped. Returns whether there are any.

        Granted before they are announced: from then on the backend may keep whatever it maps.
        """
        pool = self.pool
        if not pool.wanted_buffers:
            return False
        if pool.buffers is None:
            pool.buffers = Buffers(pool.wanted_buffers)
        if not self.grants.fits(pool.buffers.pages):
            return False
        self.link.use_buffers(pool.buffers)
        return True

    def _use_indirect(self):
        # Entries for the pages of segments, and for more frames than a direct request has.
        if self.grants.fits(INDIRECT_DEPTH + negotiate.DIRECT + 1):
            self.link.use_indirect()
        else:
            self.limits.lower("segments", negotiate.DIRECT)

    def let_go(self):
        """End what belongs to this connection: event channel, grants."""
        if self.port:
            self.loop.forget(self.port)
            self.loop.evtchn.close(self.port)
            self.port = 0
        if self.link is not None:
            ring, buffers = self.link.end()
            # What the old backend still has mapped is not used again.
            if ring:
                self.pool.memory = None
            if buffers:
                self.pool.buffers = None
            self.link = None


def _power(n):
    """The power of two that fits in n; 1 at least, so that who wants more hears why not."""
    power = 1
    while 2 * power <= n:
        power *= 2
    return power
