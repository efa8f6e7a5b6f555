"""Block front end: a PV disk, many requests in flight, taken up again when its backend comes back.

Used by whoever reads or writes a disk. Data goes to and from whole frames of guest memory, which
may be any of this domain's, granted for one request each, so nothing is copied; or, where that was
asked for and the backend keeps grants mapped, through buffers of our own. Rules: a part stays ours
until the backend has answered it, so a backend that goes away and comes back gets it once more; the
first failure that cannot be helped stops the device, and the caller hears which sector; a backend
that breaks the protocol is left for good.
Units: sectors of 512 bytes, frames of 4096.
Source: xen/include/public/io/blkif.h.
"""

import hw

from . import abi, blkneg
from .abi import XenbusStateConnected
from .blkif import OP_NAMES, PAGE_SECTORS, SECTOR, STATUS_NAMES, X86_64
from .blklink import Buffers, Link, Memory, Part
from .errors import BackendError, Timeout, XenError
from .loop import SECOND, Signal
from .xenbus import state_name

# How long a backend may go without completing any request, and how long it may be away.
STALL = 30 * SECOND
AWAY = 60 * SECOND
LOOK_AGAIN = SECOND
# How often a request that failed is done again before that is believed.
RETRIES = 2
RING_PAGES = 4
REQUESTS = 512
SEGMENTS = 256


class BlkFront:
    """loop: Loop; grants: GrantTable; device: xenbus.Device, found.

    mend: None, or a function (sector, gfn, count) that is asked when a write has failed; it returns
    the writes that are to be done in its place, a list of such triples, or None when it failed.
    buffers: how many requests' worth of buffers of our own to use, 0 for none.
    say: None, or a function that is given a line when something is worth telling.
    limits: blkneg.Limits, what to use at most.
    """

    def __init__(self, loop, grants, device, mend=None, buffers=0, say=None, limits=None):
        self.loop = loop
        self.grants = grants
        self.device = device
        self.mend = mend
        self.say = say
        self.limits = limits or blkneg.Limits(RING_PAGES, REQUESTS, SEGMENTS)
        self.sectors = 0
        self.read_only = False
        self.removable = False
        self.flushes = None
        self.discards = False
        self.sector_size = SECTOR
        self.persistent = False
        self.port = 0
        self._wanted_buffers = buffers
        self._buffers = None
        self._memory = None
        self._link = None
        self._failure = None
        # The device is not to be used any more.
        self._dead = False
        self._failed_sectors = []
        # Parts that are to be done and are not in the ring.
        self._line = []
        self._written_to = 0
        # The backend has gone; whoever waits next takes it up again.
        self._away = False
        self._scratch_pages = 0
        self._completed = Signal()
        self._completed_at = 0
        self._kick = None
        self._pump = None

    # Connecting.

    async def connect(self):
        """Bring the disk up, or leave it closed. Raises BackendError, Timeout."""
        await self.device.begin()
        try:
            await self._set_up()
        except XenError as e:
            try:
                await self.close()
            except XenError:
                # What went wrong first is what the caller needs to know.
                pass
            raise e

    async def _set_up(self):
        device = self.device
        remote = device.backend_id
        offered = await blkneg.read(device, blkneg.BEFORE)
        self.limits.agree_ring(offered)
        if self._memory is None:
            self._memory = Memory(self.limits.pages)
        pages = min(self.limits.pages, self._memory.pages)
        link = self._link = Link(self._memory, self.grants, remote, pages, device.path)
        self.port = self.loop.evtchn.alloc_unbound(remote)
        self._kick = self.loop.port(self.port)
        keys = blkneg.ring_keys(offered, link.ring_refs())
        keys += [("event-channel", self.port), ("protocol", X86_64.protocol)]
        keys += [("feature-persistent", 1)] if self._wanted_buffers else []
        for key, value in keys:
            await device.write(key, value)
        await device.connect()
        await self._read_properties(link)
        await device.set_state(XenbusStateConnected)
        self._completed_at = self.loop.now()
        self._pump = self.loop.spawn(self._collect(link))

    async def _read_properties(self, link):
        device = self.device
        found = await blkneg.read(device, blkneg.PROPERTIES)
        self.sectors = found["sectors"]
        self.sector_size = found["sector-size"]
        size = self.sector_size
        if size < SECTOR or size > abi.PAGE_SIZE or size & (size - 1):
            raise BackendError(
                "%s: sector-size is %d; 512, 1024, 2048 or 4096 expected" % (device.path, size)
            )
        self.read_only = bool(found["info"] & abi.VDISK_READONLY)
        self.removable = bool(found["info"] & abi.VDISK_REMOVABLE)
        mode = await device.store.read_text(device.backend + "/mode", "w")
        self.read_only = self.read_only or mode == "r"
        self.flushes = None
        if found["feature-flush-cache"]:
            self.flushes = abi.BLKIF_OP_FLUSH_DISKCACHE
        elif found["feature-barrier"]:
            self.flushes = abi.BLKIF_OP_WRITE_BARRIER
        self.discards = found["feature-discard"] == 1
        self.limits.agree_requests(found)
        self.persistent = found["feature-persistent"] == 1 and self._wanted_buffers > 0
        if self.persistent:
            if self._buffers is None:
                self._buffers = Buffers(self._wanted_buffers)
            link.use_buffers(self._buffers)
        elif self.limits.segments > blkneg.DIRECT:
            link.use_indirect()
        if self.persistent:
            self.limits.segments = min(self.limits.segments, blkneg.DIRECT)
        for note in self.limits.notes:
            self._tell(note)
        self.limits.notes = []

    def _tell(self, line):
        if self.say is not None:
            self.say("%s: %s" % (self.device.path, line))

    # Requests.

    async def write(self, sector, gfn, count):
        """Write `count` sectors from frame gfn on to `sector`; returns when all are in the ring.

        drain() tells of their end. Raises BackendError (also of earlier requests), Timeout.
        """
        await self._transfer(abi.BLKIF_OP_WRITE, sector, gfn, count)
        self._written_to = max(self._written_to, sector + count)

    async def read(self, sector, gfn, count):
        """Read `count` sectors from `sector` on into frame gfn and the following; as write()."""
        await self._transfer(abi.BLKIF_OP_READ, sector, gfn, count)

    async def discard(self, sector, count):
        """Tell the backend that sectors hold nothing of value; as write(). No promise at all."""
        if self.discards:
            self._bounds(abi.BLKIF_OP_DISCARD, sector, count)
            await self._put(Part(abi.BLKIF_OP_DISCARD, sector, 0, count))

    def _bounds(self, op, sector, count):
        if sector + count > self.sectors:
            raise BackendError(
                "%s: %s of sectors %d to %d, but the disk has %d"
                % (self.device.path, OP_NAMES[op], sector, sector + count, self.sectors)
            )
        unit = self.sector_size // SECTOR
        if sector % unit or count % unit:
            raise BackendError(
                "%s: %s of %d sectors from %d on, but the disk is written in units of %d bytes"
                % (self.device.path, OP_NAMES[op], count, sector, self.sector_size)
            )

    async def _transfer(self, op, sector, gfn, count):
        self._bounds(op, sector, count)
        most = self.limits.sectors()
        while count:
            size = min(count, most)
            await self._put(Part(op, sector, gfn, size))
            sector += size
            gfn += size // PAGE_SECTORS
            count -= size

    async def _put(self, part):
        """Wait until a part is in the ring, behind those that stand in line."""
        self._check()
        self._line.append(part)
        self._admit()
        while part in self._line:
            if not self._in_flight() and not self._away:
                raise BackendError(
                    "%s: no grant entries left: %d free, %d still mapped by a backend"
                    % (self.device.path, self.grants.free(), self.grants.set_aside)
                )
            await self._progress()
        self._check()

    def _admit(self):
        """Put into the ring what stands in line, as far as there is room."""
        link = self._link
        if self._away or not self._line or not link.takes(self._line[0]):
            return
        if link.in_flight == 0:
            self._completed_at = self.loop.now()
        while self._line and link.in_flight < self.limits.requests:
            if not link.takes(self._line[0]):
                break
            link.submit(self._line.pop(0))
        if link.ring.push():
            self.loop.evtchn.send(self.port)

    async def drain(self):
        """Wait until nothing is in flight. Raises BackendError of the first failure, Timeout."""
        while (self._in_flight() or self._line) and self._failure is None:
            await self._progress()
        self._check()

    async def flush(self):
        """Have the backend put what it acknowledged on stable storage, where it offers that."""
        await self.drain()
        if self.flushes == abi.BLKIF_OP_FLUSH_DISKCACHE:
            await self._put(Part(self.flushes, 0, 0, 0))
        elif self.flushes == abi.BLKIF_OP_WRITE_BARRIER:
            await self._barrier()
        await self.drain()

    async def _barrier(self):
        """A write of what is there, behind which nothing is reordered: an older kind of flush."""
        unit = self.sector_size // SECTOR
        sector = max(self._written_to - unit, 0)
        await self.read(sector, self._scratch(), unit)
        await self.drain()
        await self._put(Part(abi.BLKIF_OP_WRITE_BARRIER, sector, self._scratch(), unit))

    def _scratch(self):
        """The first of two frames of our own."""
        if not self._scratch_pages:
            self._scratch_pages = hw.alloc_pages(2)
        return self._scratch_pages // abi.PAGE_SIZE

    async def probe(self, sector):
        """Find out whether the backend counts as we do; it writes two pages from `sector` on.

        Some backends count sectors, or the parts of a frame, in units of sector-size. What such a
        one makes of the second of two pages is not found where that ought to be. Raises
        BackendError. Source: xen/include/public/io/blkif.h, notes on sector-size.
        """
        gfn = self._scratch()
        page = hw.mem(self._scratch_pages + abi.PAGE_SIZE, abi.PAGE_SIZE)
        mark = ("pvdump probe %x " % self.loop.now()).encode()
        page[: len(mark)] = mark
        try:
            await self.write(sector, gfn, 2 * PAGE_SECTORS)
            await self.drain()
            await self.read(sector + PAGE_SECTORS, gfn, PAGE_SECTORS)
            await self.drain()
            told = bytes(hw.mem(self._scratch_pages, len(mark))) == mark
        except BackendError:
            told = False
        if not told:
            raise BackendError(
                "%s: its backend does not count sectors in units of 512 bytes, as the protocol "
                "asks; sector-size is %d" % (self.device.path, self.sector_size)
            )

    def writing(self, sector):
        """Whether a write that begins at this sector is not yet acknowledged."""
        return sector in self._unwritten()

    def _unwritten(self):
        parts = (self._link.unanswered() if self._link else []) + self._line
        return [part.sector for part in parts if part.op == abi.BLKIF_OP_WRITE]

    def acknowledged(self, first):
        """The sector up to which all writes from sector `first` on have been completed.

        True of a caller that writes these sectors in ascending order.
        """
        lowest = max(self._written_to, first)
        for sector in self._unwritten() + self._failed_sectors:
            if sector >= first:
                lowest = min(lowest, sector)
        return lowest

    async def settle(self):
        """After a failed request: wait for the rest, whatever becomes of it, and go on.

        Raises BackendError when the backend is gone, Timeout.
        """
        while self._in_flight() and not self._dead:
            self._failure = None
            await self._progress()
        self._failed_sectors += [part.sector for part in self._line]
        self._line = []
        if not self._dead:
            self._failure = None
        self._check()

    # Completions.

    async def _collect(self, link):
        """The task that takes responses and fills the ring again."""
        try:
            while True:
                done = link.take()
                while done is not None:
                    self._judge(done[0], done[1])
                    done = link.take()
                self._admit()
                if not link.ring.rearm():
                    await self._kick.wait(None)
        except XenError as e:
            self._die(str(e))

    def _judge(self, part, status):
        self._completed_at = self.loop.now()
        self._completed.set()
        if status == abi.BLKIF_RSP_OKAY:
            return
        if part.op in (abi.BLKIF_OP_FLUSH_DISKCACHE, abi.BLKIF_OP_WRITE_BARRIER):
            if status == abi.BLKIF_RSP_EOPNOTSUPP:
                self.flushes = None
                return
        elif part.op == abi.BLKIF_OP_DISCARD:
            self.discards = self.discards and status != abi.BLKIF_RSP_EOPNOTSUPP
            return
        elif self._help(part):
            return
        if part.op == abi.BLKIF_OP_WRITE:
            self._failed_sectors.append(part.sector)
        self._fail(
            "%s of sector %d failed: status %d (%s)"
            % (OP_NAMES[part.op], part.sector, status, STATUS_NAMES[status])
        )

    def _help(self, part):
        """Put into the line what may do in place of a part that failed. Returns whether it may."""
        if part.op == abi.BLKIF_OP_WRITE and self.mend is not None:
            again = self.mend(part.sector, part.gfn, part.count)
            if again is not None:
                self._line = [Part(part.op, at, gfn, n) for at, gfn, n in again] + self._line
                return True
        part.tries += 1
        if part.tries > RETRIES:
            return False
        self._line.insert(0, part)
        return True

    def _in_flight(self):
        return self._link.in_flight if self._link is not None else 0

    def _check(self):
        if self._failure is not None:
            raise BackendError(self._failure)

    def _fail(self, why):
        """The first failure counts; whoever waits for a completion hears of it."""
        if self._failure is None:
            self._failure = "%s: %s" % (self.device.path, why)
        self._completed.set()

    def _die(self, why):
        self._dead = True
        self._failure = None
        self._fail(why)

    async def _progress(self):
        """Wait for a completion. Raises BackendError, Timeout when the backend is gone or stuck."""
        self._check()
        await self._completed.wait(self.loop.now() + LOOK_AGAIN)
        waited = self.loop.now() - self._completed_at
        if self._failure is not None or self._away or waited < LOOK_AGAIN:
            return
        state = await self._backend_state()
        if self._failure is None and not self._away and state != XenbusStateConnected:
            await self._take_up_again(state)
        elif waited >= STALL and self._in_flight():
            raise Timeout(
                "%s: no request completed for %d s, %d in flight"
                % (self.device.path, STALL // SECOND, self._in_flight())
            )

    async def _backend_state(self):
        """The backend's state; Connected where xenstore does not say: the ring decides then."""
        try:
            return await self.device.backend_state()
        except XenError:
            return XenbusStateConnected

    # A backend that went away.

    async def _take_up_again(self, state):
        """Wait until the backend can be connected again; what it did not answer is done again."""
        self._away = True
        why = "the backend left Connected, its state is %s" % state_name(state)
        self._tell(why + "; waiting for it")
        self._line = self._link.unanswered() + self._line
        sectors = self.sectors
        self._let_go()
        try:
            await self._return(why)
            if self.sectors < sectors:
                self._die("%s; it came back with %d sectors of %d" % (why, self.sectors, sectors))
        finally:
            self._away = False
        self._check()
        self._tell("the backend is back, %d requests are done again" % len(self._line))
        self._admit()
        self._completed.set()

    async def _return(self, why):
        deadline = self.loop.now() + AWAY
        while True:
            try:
                await self.device.find()
                await self.device.begin()
                await self._set_up()
                return
            except XenError as e:
                self._let_go()
                if self.loop.now() >= deadline:
                    self._die("%s; it was not back within %d s: %s" % (why, AWAY // SECOND, e))
                    return
            await self.loop.sleep(LOOK_AGAIN)

    def _let_go(self):
        """End what belongs to this connection: task, event channel, grants."""
        if self._pump is not None:
            self._pump.cancel()
            self._pump = None
        if self.port:
            self.loop.forget(self.port)
            self.loop.evtchn.close(self.port)
            self.port = 0
        if self._link is not None and self._link.end():
            # The old backend still has pages of the ring mapped: they are not used again.
            self._memory = None
        self._link = None

    async def close(self):
        """Leave the disk so that the next kernel can attach at once, grants taken back."""
        try:
            await self.device.close()
        finally:
            self._let_go()
