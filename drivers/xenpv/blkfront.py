"""Block front end: a PV disk through a ring of one page, many requests in flight.

Used by whoever reads or writes a disk. Data goes to and from whole frames of guest memory, granted
for one request each, so nothing is copied and the frames may be any of this domain's. Requests
complete in any order. A response is believed only after its id, operation and status were checked
against what was asked; the first failure stops the device, and the caller hears which sector.
Units: sectors of 512 bytes, frames of 4096.
Source: xen/include/public/io/blkif.h.
"""

import hw

from . import abi
from .abi import XenbusStateConnected
from .errors import BackendError, RingCorrupt, Timeout, XenError
from .loop import SECOND, Signal
from .ring import FrontRing

SECTOR = 512
PAGE_SECTORS = abi.PAGE_SIZE // SECTOR
# How long a backend may go without completing any request.
STALL = 30 * SECOND
LOOK_AGAIN = SECOND
REFS_STRIDE = 64
STATUS_NAMES = {
    abi.BLKIF_RSP_OKAY: "OKAY",
    abi.BLKIF_RSP_ERROR: "ERROR",
    abi.BLKIF_RSP_EOPNOTSUPP: "EOPNOTSUPP",
}
OP_NAMES = {
    abi.BLKIF_OP_READ: "read",
    abi.BLKIF_OP_WRITE: "write",
    abi.BLKIF_OP_FLUSH_DISKCACHE: "flush",
}


class _Request:
    """A request in the ring: `count` sectors from `sector` on, in frames from `gfn` on."""

    def __init__(self, id, op, sector, gfn, count):
        self.id = id
        self.op = op
        self.sector = sector
        self.gfn = gfn
        self.count = count
        self.segments = (count + PAGE_SECTORS - 1) // PAGE_SECTORS


class BlkFront:
    """loop: Loop; grants: GrantTable; device: xenbus.Device, found.

    mend: None, or a function (sector, gfn, count) that is asked when a write has failed; it returns
    the writes that are to be done in its place, a list of such triples, or None when it failed.
    """

    def __init__(self, loop, grants, device, mend=None):
        self.loop = loop
        self.grants = grants
        self.device = device
        self.mend = mend
        self.sectors = 0
        self.read_only = False
        self.flushes = False
        self.port = 0
        self._ring = FrontRing(hw.alloc_pages(1), abi.BLKIF_REQUEST_SIZEOF, "block")
        # Grant references of the request in each slot, as the C primitives want them.
        self._refs = hw.alloc_pages(1)
        self._ring_ref = hw.alloc_pages(1)
        self._slots = [None] * self._ring.slots
        self._in_flight = 0
        self._serial = 0
        self._failure = None
        # The device is not to be used any more.
        self._dead = False
        self._failed_sectors = []
        # Writes that stand for failed ones and are not in the ring yet.
        self._again = []
        self._written_to = 0
        self._completed = Signal()
        self._completed_at = 0
        self._kick = None
        self._pump = None

    async def connect(self):
        """Bring the disk up, or leave it closed. Raises BackendError, Timeout."""
        await self.device.begin()
        self.grants.take(self._ring_ref, 1)
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
        gfn = self._ring.addr // abi.PAGE_SIZE
        self.grants.grant(self._ring_ref, 1, remote, gfn, False)
        self.port = self.loop.evtchn.alloc_unbound(remote)
        self._kick = self.loop.port(self.port)
        await device.write("ring-ref", hw.rd32(self._ring_ref))
        await device.write("event-channel", self.port)
        await device.write("protocol", "x86_64-abi")
        await device.connect()
        await self._read_properties()
        await device.set_state(XenbusStateConnected)
        self._pump = self.loop.spawn(self._collect())

    async def _read_properties(self):
        device = self.device
        self.sectors = await device.backend_int("sectors")
        if self.sectors >= 1 << 54:
            raise BackendError("%s: %d sectors cannot be" % (device.path, self.sectors))
        size = await device.backend_int("sector-size", SECTOR)
        if size != SECTOR:
            raise BackendError(
                "%s: sector-size is %d; only disks with 512-byte sectors can be used"
                % (device.path, size)
            )
        self.read_only = bool(await device.backend_int("info", 0) & abi.VDISK_READONLY)
        mode = await device.store.read_text(device.backend + "/mode", "w")
        self.read_only = self.read_only or mode == "r"
        self.flushes = await device.backend_int("feature-flush-cache", 0) == 1

    async def write(self, sector, gfn, count):
        """Write `count` sectors from frame gfn on to `sector`; returns when all are in the ring.

        drain() tells of their end. Raises BackendError (also of earlier requests), Timeout.
        """
        await self._transfer(abi.BLKIF_OP_WRITE, sector, gfn, count)

    async def read(self, sector, gfn, count):
        """Read `count` sectors from `sector` on into frame gfn and the following; as write()."""
        await self._transfer(abi.BLKIF_OP_READ, sector, gfn, count)

    async def _transfer(self, op, sector, gfn, count):
        if sector + count > self.sectors:
            raise BackendError(
                "%s: %s of sectors %d to %d, but the disk has %d"
                % (self.device.path, OP_NAMES[op], sector, sector + count, self.sectors)
            )
        most = abi.BLKIF_MAX_SEGMENTS_PER_REQUEST * PAGE_SECTORS
        while count:
            await self._redo()
            part = min(count, most)
            await self._room(part)
            self._submit(op, sector, gfn, part)
            if op == abi.BLKIF_OP_WRITE:
                self._written_to = max(self._written_to, sector + part)
            sector += part
            gfn += part // PAGE_SECTORS
            count -= part

    async def _redo(self):
        """Put the writes that stand for failed ones into the ring."""
        while self._again:
            sector, gfn, count = self._again[0]
            await self._room(count)
            self._submit(abi.BLKIF_OP_WRITE, sector, gfn, count)
            self._again.pop(0)

    async def _room(self, count):
        """Wait until a request of so many sectors can go into the ring."""
        segments = (count + PAGE_SECTORS - 1) // PAGE_SECTORS
        while self._ring.free() == 0 or self.grants.free() < segments:
            if self._in_flight == 0:
                raise BackendError(
                    "%s: no grant entries left: %d free, %d still mapped by a backend"
                    % (self.device.path, self.grants.free(), self.grants.set_aside)
                )
            await self._progress()
        self._check()

    def _check(self):
        if self._failure is not None:
            raise BackendError(self._failure)

    def _submit(self, op, sector, gfn, count):
        index = self._slots.index(None)
        self._serial += 1
        request = _Request(self._serial * self._ring.slots + index, op, sector, gfn, count)
        segments = request.segments
        refs = self._refs + REFS_STRIDE * index
        if segments:
            self.grants.take(refs, segments)
            readonly = op == abi.BLKIF_OP_WRITE
            self.grants.grant(refs, segments, self.device.backend_id, gfn, readonly)
        if self._in_flight == 0:
            self._completed_at = self.loop.now()
        self._slots[index] = request
        self._in_flight += 1
        at = self._ring.slot()
        hw.wr8(at + abi.BLKIF_REQUEST_OPERATION, op)
        hw.wr8(at + abi.BLKIF_REQUEST_NR_SEGMENTS, segments)
        hw.wr16(at + abi.BLKIF_REQUEST_HANDLE, 0)
        hw.wr64(at + abi.BLKIF_REQUEST_ID, request.id)
        hw.wr64(at + abi.BLKIF_REQUEST_SECTOR_NUMBER, sector)
        if segments:
            last = (count - 1) % PAGE_SECTORS
            hw.seg_fill(at + abi.BLKIF_REQUEST_SEG, refs, segments, 0, last)
        if self._ring.push():
            self.loop.evtchn.send(self.port)

    async def drain(self):
        """Wait until nothing is in flight. Raises BackendError of the first failure, Timeout."""
        while (self._in_flight or self._again) and self._failure is None:
            await self._redo()
            if self._in_flight:
                await self._progress()
        self._check()

    async def flush(self):
        """Have the backend put what it acknowledged on stable storage, where it offers that."""
        await self.drain()
        if self.flushes:
            self._submit(abi.BLKIF_OP_FLUSH_DISKCACHE, 0, 0, 0)
            await self.drain()

    def writing(self, sector):
        """Whether a write that begins at this sector is in flight."""
        return any(r and r.op == abi.BLKIF_OP_WRITE and r.sector == sector for r in self._slots)

    def acknowledged(self, first):
        """The sector up to which all writes from sector `first` on have been completed.

        True of a caller that writes these sectors in ascending order.
        """
        lowest = max(self._written_to, first)
        writes = [r.sector for r in self._slots if r and r.op == abi.BLKIF_OP_WRITE]
        writes += [sector for sector, _, _ in self._again]
        for sector in writes + self._failed_sectors:
            if sector >= first:
                lowest = min(lowest, sector)
        return lowest

    async def settle(self):
        """After a failed request: wait for the rest, whatever becomes of it, and go on.

        Raises BackendError when the backend is gone, Timeout.
        """
        while self._in_flight and not self._dead:
            self._failure = None
            await self._progress()
        self._failed_sectors += [sector for sector, _, _ in self._again]
        self._again = []
        if not self._dead:
            self._failure = None
        self._check()

    async def _progress(self):
        """Wait for a completion. Raises BackendError, Timeout when the backend is gone or stuck."""
        self._check()
        await self._completed.wait(self.loop.now() + LOOK_AGAIN)
        waited = self.loop.now() - self._completed_at
        if self._failure is None and self._in_flight and waited >= LOOK_AGAIN:
            state = await self._backend_state()
            if state != XenbusStateConnected:
                self._die("the backend left Connected, its state is %d" % state)
                self._check()
            if waited >= STALL:
                raise Timeout(
                    "%s: no request completed for %d s, %d in flight"
                    % (self.device.path, STALL // SECOND, self._in_flight)
                )

    async def _backend_state(self):
        """The backend's state; Connected where xenstore does not say: the ring decides then."""
        try:
            return await self.device.backend_state()
        except XenError:
            return XenbusStateConnected

    async def _collect(self):
        """The task that takes responses."""
        try:
            while True:
                response = self._ring.take()
                while response is not None:
                    self._complete(response)
                    response = self._ring.take()
                if not self._ring.rearm():
                    await self._kick.wait(None)
        except XenError as e:
            self._die(str(e))

    def _complete(self, at):
        id = hw.rd64(at + abi.BLKIF_RESPONSE_ID)
        op = hw.rd8(at + abi.BLKIF_RESPONSE_OPERATION)
        status = hw.rd16(at + abi.BLKIF_RESPONSE_STATUS)
        status -= (status & 0x8000) << 1
        index = id % self._ring.slots
        request = self._slots[index]
        if request is None or request.id != id:
            raise RingCorrupt("response to id %d, which is not in flight" % id)
        if op != request.op:
            raise RingCorrupt(
                "response with operation %d to a %s (id %d)" % (op, OP_NAMES[request.op], id)
            )
        if status not in STATUS_NAMES:
            raise RingCorrupt("response with status %d (id %d)" % (status, id))
        self._slots[index] = None
        self._in_flight -= 1
        self._completed_at = self.loop.now()
        if request.segments:
            self.grants.end(self._refs + REFS_STRIDE * index, request.segments)
        self._judge(request, status)
        self._completed.set()

    def _judge(self, request, status):
        if status == abi.BLKIF_RSP_OKAY:
            return
        if request.op == abi.BLKIF_OP_FLUSH_DISKCACHE and status == abi.BLKIF_RSP_EOPNOTSUPP:
            self.flushes = False
            return
        if request.op == abi.BLKIF_OP_WRITE:
            again = self.mend(request.sector, request.gfn, request.count) if self.mend else None
            if again is not None:
                self._again += again
                return
            self._failed_sectors.append(request.sector)
        self._fail(
            "%s of sector %d failed: status %d (%s)"
            % (OP_NAMES[request.op], request.sector, status, STATUS_NAMES[status])
        )

    def _fail(self, why):
        """The first failure counts; whoever waits for a completion hears of it."""
        if self._failure is None:
            self._failure = "%s: %s" % (self.device.path, why)
        self._completed.set()

    def _die(self, why):
        self._dead = True
        self._failure = None
        self._fail(why)

    async def close(self):
        """Leave the disk so that the next kernel can attach at once, grants taken back."""
        if self._pump is not None:
            self._pump.cancel()
        try:
            await self.device.close()
        finally:
            if self.port:
                self.loop.forget(self.port)
                self.loop.evtchn.close(self.port)
                self.port = 0
            for index, request in enumerate(self._slots):
                if request is not None and request.segments:
                    self.grants.end(self._refs + REFS_STRIDE * index, request.segments)
            self.grants.end(self._ring_ref, 1)
