"""Block front end: read, write, discard and flush of a PV disk, with many requests in flight.

Used by readers and writers of a disk. Data goes to and from whole frames of guest memory, which
may be any of this domain's, granted for one request each, so nothing is copied; or, where that was
asked for and the backend keeps grants mapped, through buffers of our own. Rules: a request is done
again until the backend has answered it; the first failure that cannot be helped stops the disk,
and its error names the sector.
Units: sectors of 512 bytes, frames of 4096.
Source: xen/include/public/io/blkif.h.
"""

from .. import abi
from ..errors import BackendError
from .blkif import OP_NAMES, PAGE_SECTORS, SECTOR
from .negotiate import Limits
from .requests import Part
from .supervise import BREATHER, CLOSE_TIMEOUT, SupervisedDisk

RING_PAGES = 4
REQUESTS = 128
SEGMENTS = 256


class BlkFront(SupervisedDisk):
    """A PV disk.

    Args:
        loop: Loop.
        grants: GrantTable.
        device: xenbus.Device, found.
        mend: None, or a function (sector, gfn, count) that is asked when a write has failed; it
            returns the writes to do in its place, a list of write()'s arguments, or None if it
            failed.
        buffers: how many requests' worth of buffers of our own to use, 0 for none.
        say: None, or a function that is given a line when something is worth telling.
        limits: negotiate.Limits, what to use at most.

    Attributes, once connected: properties, negotiate.Properties, and its sectors, sector_size,
    read_only and removable; persistent, whether data goes through buffers that the backend keeps
    mapped; limits as agreed on.
    """

    def __init__(self, loop, grants, device, mend=None, buffers=0, say=None, limits=None):
        wanted = limits or Limits(RING_PAGES, REQUESTS, SEGMENTS)
        super().__init__(loop, grants, device, mend, say, wanted, buffers)

    async def write(self, sector, gfn, count, frames=None):
        """Write `count` sectors from frame gfn on to `sector`, and return when all are in the ring.

        drain() waits for their end.

        Args:
            frames: None, or how many frames there are, DIRECT at least, behind which the data
                begins again at gfn.

        Raises: BackendError, also of earlier requests; Timeout.
        """
        await self._transfer(abi.BLKIF_OP_WRITE, sector, gfn, count, frames)

    async def read(self, sector, gfn, count):
        """Read `count` sectors from `sector` on into frame gfn and the following, as write()."""
        await self._transfer(abi.BLKIF_OP_READ, sector, gfn, count, None)

    async def discard(self, sector, count):
        """Tell the backend that sectors hold nothing of value, as write(); it may ignore that."""
        self._bounds(abi.BLKIF_OP_DISCARD, sector, count)
        sector, count = self.properties.extents(sector, count)
        if self.properties.discards and count:
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

    async def _transfer(self, op, sector, gfn, count, frames):
        self._bounds(op, sector, count)
        while count:
            size = min(count, self.limits.sectors())
            await self._put(Part(op, sector, gfn, size, frames))
            sector += size
            if frames is None:
                gfn += size // PAGE_SECTORS
            count -= size

    async def _put(self, part):
        """Wait until a part is in the ring, behind those that stand in line."""
        queue = self.queue
        queue.check()
        queue.put(part)
        while queue.waits(part):
            await self._progress()
        queue.check()

    async def drain(self):
        """Wait until nothing is in flight.

        Raises: BackendError of the first failure; Timeout.
        """
        while self.queue.busy() and self.queue.failure is None:
            await self._progress()
        self.queue.check()

    async def flush(self):
        """Have the backend put what it acknowledged on stable storage, where it offers that.

        Raises: as drain().
        """
        await self.drain()
        # One that is offered and then refused gives way to the next.
        while self.properties.flushes:
            kind = self.properties.flushes[0]
            if kind == abi.BLKIF_OP_FLUSH_DISKCACHE:
                await self._put(Part(kind, 0, 0, 0))
            else:
                await self._barrier()
            await self.drain()
            if kind in self.properties.flushes:
                break
        self.queue.unflushed = False

    async def _barrier(self):
        """Write once more what is there, as a barrier, which is an older kind of flush."""
        gfn = self._pool.memory.scratch // abi.PAGE_SIZE
        unit = self.sector_size // SECTOR
        sector = max(self.queue.written_to - unit, 0)
        await self.read(sector, gfn, unit)
        await self.drain()
        await self._put(Part(abi.BLKIF_OP_WRITE_BARRIER, sector, gfn, unit))

    def writing(self, sector):
        """Tell whether a write that begins at this sector is not yet acknowledged."""
        return self.queue.writing(sector)

    def acknowledged(self, first):
        """Give the sector up to which all writes from sector `first` on have been completed.

        It is right if the caller writes these sectors in ascending order.
        """
        return self.queue.acknowledged(first)

    async def wait(self, first, sector):
        """Wait until all writes from sector `first` up to `sector` have been completed.

        Raises: as drain(). acknowledged() has what it asks for.
        """
        await self.wait_until(lambda: self.queue.acknowledged(first) >= sector)

    async def wait_until(self, is_done):
        """Wait until is_done() is true, which is asked after each answer. Raises: as drain()."""
        while self.queue.failure is None and not is_done():
            await self._progress()
        self.queue.check()

    def pending(self):
        """Give the sectors where writes begin that failed or are not yet acknowledged, a list."""
        return self.queue.pending()

    async def settle(self):
        """Wait, after a failed request, for the rest, whatever becomes of it, and go on.

        Raises: BackendError when the backend is gone; Timeout.
        """
        queue = self.queue
        while queue.in_flight() and not queue.dead:
            queue.forgive()
            await self._progress()
        queue.drop_line()
        queue.forgive()
        queue.check()

    async def close(self):
        """Leave the disk so that the next kernel can connect to it at once, grants taken back.

        Requests in flight are waited for, and flushed if anything was written. Where that fails the
        disk is left all the same. The memory of its rings is given back.

        Raises: XenError, the first one.
        """
        while self.suspended:
            await self.loop.sleep(BREATHER)
        try:
            if self.queue.failure is None and self.connection is not None:
                await self._finish()
        finally:
            await self._leave(CLOSE_TIMEOUT)

    async def _finish(self):
        await self.drain()
        if self.queue.unflushed:
            await self.flush()
