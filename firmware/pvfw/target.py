"""The disk that a dump goes to: found by name, and believed and described by its superblock.

Used by the dump agent and the self-check. The rule: everything is checked before the first write,
and the superblock never says more than what the backend has acknowledged. A frame that has no
memory behind it, as where a balloon driver gave it back to Xen, cannot be granted; zeros are
written in its place and counted.
"""

import hw
from xenpv import abi
from xenpv.block import disks, vdev
from xenpv.block.blkif import PAGE_SECTORS, SECTOR
from xenpv.block.front import BlkFront
from xenpv.block.probe import probe
from xenpv.errors import XenError
from xenpv.loop import SECOND
from xenpv.xenbus import Device

from . import superblock
from .errors import TargetRefused

MIB = superblock.MIB
# Pages of zeros to write where there is no memory: as many as a request takes.
ZEROS = abi.BLKIF_MAX_SEGMENTS_PER_REQUEST


async def find(store, loop, name):
    """Find the disk with this name. Raises TargetRefused naming those that are there."""
    there = await disks.numbers(store)
    number = vdev.find(name, there)
    if number is None:
        raise TargetRefused(
            "no disk %s (device/vbd/%d); this guest has %s"
            % (name, vdev.number(name), ", ".join([str(n) for n in there]) or "none")
        )
    device = Device(store, loop, "%s/%d" % (disks.HOME, number))
    await device.find()
    return device


async def read_superblock(disk, page):
    """Read what stands where a superblock would. disk: BlkFront; page: address of a page of ours.

    Raises TargetRefused, XenError.
    """
    if disk.sectors < PAGE_SECTORS:
        raise TargetRefused("the disk has only %d sectors" % disk.sectors)
    await disk.read(0, page // abi.PAGE_SIZE, PAGE_SECTORS)
    await disk.drain()


def now_utc():
    """Seconds since 1970. Source: xen.h, struct shared_info: wc_* is the time at system time 0."""
    page = hw.shared_info()
    base = hw.rd32(page + abi.SHARED_INFO_WC_SEC) | hw.rd32(page + abi.SHARED_INFO_WC_SEC_HI) << 32
    return base + hw.now() // SECOND


class Target:
    """A disk with a superblock of ours.

    xen: Hypercalls; device: xenbus.Device, found; say: a function that is given lines to tell.
    """

    def __init__(self, xen, loop, grants, device, name, say):
        self.xen = xen
        self.name = name
        self.disk = BlkFront(loop, grants, device, self._mend, say=say)
        self.block = None
        self.holes = 0
        self._page = hw.alloc_pages(1)
        self._zeros = hw.alloc_pages(ZEROS) // abi.PAGE_SIZE

    async def write(self, sector, gfn, pages):
        """Write frames of any memory; once a hole was met, each is looked at before."""
        if self.holes == 0:
            await self.disk.write(sector, gfn, pages * PAGE_SECTORS)
            return
        end = gfn + pages
        while gfn < end:
            hole = self.xen.is_hole(gfn)
            run = 1
            while gfn + run < end and self.xen.is_hole(gfn + run) == hole:
                run += 1
            if hole:
                self.holes += run
                await self._write_zeros(sector, run)
            else:
                await self.disk.write(sector, gfn, run * PAGE_SECTORS)
            sector += run * PAGE_SECTORS
            gfn += run

    async def _write_zeros(self, sector, pages):
        for done in range(0, pages, ZEROS):
            count = min(ZEROS, pages - done) * PAGE_SECTORS
            await self.disk.write(sector + done * PAGE_SECTORS, self._zeros, count)

    def _mend(self, sector, gfn, count):
        """Writes in place of one that failed because of frames without memory; None if not so."""
        frames = range(gfn, gfn + (count + PAGE_SECTORS - 1) // PAGE_SECTORS)
        holes = [frame for frame in frames if self.xen.is_hole(frame)]
        if not holes:
            return None
        self.holes += len(holes)
        parts = []
        for frame in frames:
            at = sector + (frame - gfn) * PAGE_SECTORS
            size = min(PAGE_SECTORS, sector + count - at)
            source = self._zeros if frame in holes else frame
            parts.append((at, source, size))
        return parts

    async def open(self):
        """Connect the disk and read its superblock. Raises TargetRefused, XenError."""
        await self.disk.connect()
        try:
            await read_superblock(self.disk, self._page)
            self.block = superblock.decode(hw.mem(self._page, superblock.SUPERBLOCK_SIZE))
        except TargetRefused as e:
            raise self._refused(str(e))

    def _refused(self, why):
        return TargetRefused("%s refused, nothing on it was changed: %s" % (self.name, why))

    def check(self, size):
        """Refuse, before anything is written, a disk that may not or cannot hold `size` bytes."""
        disk = self.disk
        why = superblock.refusal(self.block, disk.sectors * SECTOR, disk.read_only, size)
        if why is not None:
            raise self._refused(why)

    async def probe(self):
        """See, where that is not certain, that the backend counts sectors as we do."""
        if self.disk.sector_size != SECTOR:
            await probe(self.disk, self.first())

    def first(self):
        """The sector where the vmcore begins."""
        return self.block.data_offset // SECTOR

    def written(self):
        """Bytes of the vmcore, from its start, that the backend has acknowledged."""
        done = self.disk.acknowledged(self.first()) - self.first()
        return min(max(done, 0) * SECTOR, self.block.dump_size)

    async def _put(self, state):
        self.block.state = state
        self.block.ended = now_utc()
        hw.mem(self._page, superblock.SUPERBLOCK_SIZE)[:] = self.block.encode()
        # A part of a physical block would be read, changed and written by the disk.
        size = self.disk.properties.physical_size
        await self.disk.write(0, self._page // abi.PAGE_SIZE, size // SECTOR)

    async def save(self, state):
        """Write the superblock in a new state, on stable storage when this returns."""
        await self.disk.drain()
        await self._put(state)
        await self.disk.flush()

    async def close(self, say):
        """Leave the disk in order; that it cannot be left so undoes nothing."""
        if not self.disk.connected():
            return
        try:
            await self.disk.close()
        except XenError as e:
            say("leaving the disk: %s" % e)

    async def note(self):
        """Bring the superblock up to date on the way, unless the last time is still in flight."""
        if not self.disk.writing(0):
            self.block.written = self.written()
            await self._put(superblock.WRITING)
