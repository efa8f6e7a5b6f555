"""The target of a dump: a disk found by name, or extents of it, believed by the superblock there.

Used by the dump agent and the self-check; it is the sink that dump.py describes. Rules: everything
is checked before the first write; the superblock never says more than what the backend has
acknowledged; the crashed kernel's frames are granted to the backend, and zeros are written, and
counted, in place of those that cannot be. Where the target is extents (extents.py), only they are
read and written, and this module alone knows it.
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
from .clock import now_utc
from .errors import DumpError, TargetRefused, reason
from .extents import ExtentDisk
from .holes import Holes, runs

MIB = superblock.MIB
PAGE_SIZE = abi.PAGE_SIZE
# Pages of zeros, used again and again in one request: as many as each request can have.
ZEROS = abi.BLKIF_MAX_SEGMENTS_PER_REQUEST
# Frames given to the disk at a time; between two such pieces progress is shown.
PIECE = 1024
# How long connecting anew may take after the disk died, ns.
REOPEN_TIMEOUT = 30 * SECOND


async def find(store, loop, name):
    """Find the device of this domain's disk with this name.

    Raises TargetRefused, which names the disks that are there, and XenError.
    """
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


def part(disk, extents):
    """Return what a target is read and written through: the disk, or extents of it, or None."""
    return disk if extents is None else ExtentDisk(disk, extents)


async def read_superblock(disk, page, wanted):
    """Read the superblock of a target and check that it is the one wanted.

    Args:
        disk: of part(), connected.
        page: physical address of a page of ours; it has the target's first page afterwards.
        wanted: config.Target.

    Returns: Superblock. Raises TargetRefused, XenError.
    """
    if wanted.extents is not None:
        disk.check()
    if disk.sectors < PAGE_SECTORS:
        raise TargetRefused("the disk has only %d sectors" % disk.sectors)
    block = await _read_block(disk, page, 0)
    wanted.check(block)
    if wanted.has_copy():
        last = await _read_block(disk, page, block.copy_at() // SECTOR)
        wanted.check(last)
        block = await _read_block(disk, page, 0)
    return block


async def _read_block(disk, page, sector):
    await disk.read(sector, page // PAGE_SIZE, PAGE_SECTORS)
    await disk.drain()
    return superblock.decode(hw.mem(page, superblock.SUPERBLOCK_SIZE))


class Memory:
    """The memory that targets need, one after the other.

    Args:
        grants: GrantTable.

    Attributes: page, address of a page for a superblock; zeros, the first frame of ZEROS frames of
    zeros; buffer, address of `size` bytes for what is copied.
    """

    def __init__(self, grants):
        self._grants = grants
        self._aside = grants.set_aside
        self.page = hw.alloc_pages(1)
        self.zeros = self.buffer = self.size = 0

    def fresh(self):
        """Take another page for a superblock if a backend may still write to the last one."""
        if self._grants.set_aside != self._aside:
            self._aside = self._grants.set_aside
            self.page = hw.alloc_pages(1)

    def reserve(self, pages):
        """Take the rest, unless that is done. pages: of the buffer. Raises DumpError."""
        if self.size:
            return
        try:
            self.zeros = hw.alloc_pages(ZEROS) // PAGE_SIZE
            self.buffer = hw.alloc_pages(pages)
        except MemoryError as e:
            raise DumpError("no memory for %d pages of buffers: %s" % (ZEROS + pages, e))
        self.size = pages * PAGE_SIZE


class Target:
    """A disk with a superblock of ours.

    Args:
        xen: Hypercalls.
        loop: Loop.
        grants: GrantTable.
        device: xenbus.Device, found.
        wanted: config.Target.
        memory: Memory, which no other target uses any more.
        say: a function that is given lines for the console.

    Attributes: name, of wanted, for messages; disk, of part(); block, the Superblock, once it is
    open.
    """

    def __init__(self, xen, loop, grants, device, wanted, memory, say):
        self.name = str(wanted)
        self.say = say
        self._wanted = wanted
        self._on = (loop, grants, device)
        self.disk = self._make_disk()
        self.block = None
        self._holes = Holes(xen)
        self._memory = memory
        self._page = memory.page
        # Bytes in the buffer; whether the backend may still read it.
        self._filled = 0
        self._lent = False
        self._sector = self._end = 0
        self._progress = None

    def _make_disk(self):
        return part(BlkFront(*self._on, self._mend, say=self.say), self._wanted.extents)

    # Before the first write.

    async def open(self):
        """Connect the disk and read its superblock. Raises TargetRefused, XenError."""
        await self.disk.connect()
        try:
            self.block = await read_superblock(self.disk, self._page, self._wanted)
        except TargetRefused as e:
            raise self._refused(str(e))

    def _refused(self, why):
        return TargetRefused("%s refused, nothing on it was changed: %s" % (self.name, why))

    def check(self, size):
        """Refuse a disk that may not or cannot hold `size` bytes. Raises TargetRefused."""
        disk = self.disk
        why = superblock.refusal(self.block, disk.sectors * SECTOR, disk.read_only, size)
        if why is not None:
            raise self._refused(why)

    def reserve(self, pages):
        """Take all memory that writing needs. pages: for what put() is given. Raises DumpError."""
        self._memory.reserve(pages)

    async def probe(self):
        """Check, where that is not certain, that the backend counts sectors as we do.

        Raises XenError.
        """
        if self.disk.sector_size != SECTOR:
            await probe(self.disk, self._first())

    def _first(self):
        """Return the sector where the dump begins."""
        return self.block.data_offset // SECTOR

    # The sink.

    def begin(self, progress):
        """Have what follows written from the dump's first byte on.

        Args:
            progress: an async function, called now and then.
        """
        self._sector = self._first()
        self._end = self._sector + self.block.room() // SECTOR
        self._progress = progress

    async def put(self, data):
        """Append bytes (bytes or memoryview of any length), which are copied.

        Raises XenError, also of earlier writes.
        """
        done = 0
        while done < len(data):
            if self._filled == self._memory.size:
                await self._send()
            if self._lent:
                await self.disk.drain()
                self._lent = False
            count = min(self._memory.size - self._filled, len(data) - done)
            hw.mem(self._memory.buffer + self._filled, count)[:] = data[done : done + count]
            self._filled += count
            done += count

    async def _send(self):
        """Write what the buffer holds, completed with zeros to whole pages."""
        if self._filled == 0:
            return
        pages = (self._filled + PAGE_SIZE - 1) // PAGE_SIZE
        rest = pages * PAGE_SIZE - self._filled
        hw.mem(self._memory.buffer + self._filled, rest)[:] = bytes(rest)
        self._filled = 0
        self._lent = True
        sector = self._advance(pages)
        await self.disk.write(sector, self._memory.buffer // PAGE_SIZE, pages * PAGE_SECTORS)

    def _advance(self, pages):
        """Go on by so many pages. Returns the sector before. Raises DumpError at the end."""
        sector = self._sector
        end = sector + pages * PAGE_SECTORS
        if end > self._end:
            raise DumpError(
                "the target is full: it has room for %d MiB" % (self.block.room() // MIB)
            )
        self._sector = end
        return sector

    async def own(self, gfn, count):
        """Append whole frames of our own, behind the end of a page.

        They are granted to the backend, so they stay as they are until they are written, which
        wait() waits for. Raises XenError, also of earlier writes; DumpError at the target's end.

        Args:
            gfn: the first frame.
            count: how many.
        """
        await self._send()
        sector = self._advance(count)
        await self.disk.write(sector, gfn, count * PAGE_SECTORS)
        await self._progress()

    async def wait(self, size):
        """Wait until the backend has acknowledged the first `size` bytes. Raises XenError."""
        first = self._first()
        await self.disk.wait(first, first + size // SECTOR)

    async def frames(self, gfn, count):
        """Append whole frames of the crashed kernel, behind the end of a page.

        They are granted to the backend, not copied. Raises XenError, also of earlier writes.

        Args:
            gfn: the first frame.
            count: how many.
        """
        await self._send()
        while count:
            part = min(count, PIECE)
            for first, number, is_lendable in self._holes.runs(gfn, part):
                sector = self._advance(number)
                if is_lendable:
                    await self.disk.write(sector, first, number * PAGE_SECTORS)
                else:
                    await self.disk.write(sector, self._memory.zeros, number * PAGE_SECTORS, ZEROS)
            gfn += part
            count -= part
            await self._progress()

    def _mend(self, sector, gfn, count):
        """Give the writes that do in place of one that failed of its frames; None if not so."""
        pages = (count + PAGE_SECTORS - 1) // PAGE_SECTORS
        is_first = self._holes.count == 0
        found = self._holes.find(gfn, pages)
        if found and is_first:
            self.say(
                "frame 0x%x cannot be lent to the backend: it has no memory, or another domain's;"
                " zeros in its place; from here on Xen is asked first" % found[0]
            )
        if not found:
            return None
        parts = []
        for first, number, is_lendable in runs(gfn, pages, found):
            at = sector + (first - gfn) * PAGE_SECTORS
            size = min(number * PAGE_SECTORS, sector + count - at)
            zeros = (at, self._memory.zeros, size, ZEROS)
            parts.append((at, first, size) if is_lendable else zeros)
        return parts

    async def sync(self):
        """Have what was appended so far on stable storage, where the backend offers that.

        Raises XenError, also of earlier writes.
        """
        await self._send()
        await self.disk.flush()

    async def end(self):
        """Write what is left, and wait until the backend has acknowledged everything.

        Returns: bytes of the dump.
        """
        await self._send()
        await self.disk.drain()
        return (self._sector - self._first()) * SECTOR

    def written(self):
        """Return how many bytes of the dump, from its start, the backend has acknowledged."""
        done = self.disk.acknowledged(self._first()) - self._first()
        return min(max(done, 0), self._sector - self._first()) * SECTOR

    async def settle(self):
        """After a failure, wait for what is in flight; connect the disk anew if it died of it.

        Returns how many bytes of the dump, from its start, are written. Raises XenError when the
        disk takes nothing any more.
        """
        written = self.written()
        try:
            await self.disk.settle()
            return self.written()
        except XenError:
            if not self.disk.connected():
                # The backend has gone for good.
                raise
        await self.close()
        self.disk = self._make_disk()
        await self.disk.connect(REOPEN_TIMEOUT)
        return written

    # The superblock.

    async def _put_superblock(self, state):
        self.block.state = state
        self.block.ended = now_utc()
        hw.mem(self._page, superblock.SUPERBLOCK_SIZE)[:] = self.block.encode()
        # A part of a physical block would be read, changed and written by the disk.
        size = self.disk.properties.physical_size
        await self.disk.write(0, self._page // PAGE_SIZE, size // SECTOR)

    async def save(self, state):
        """Write the superblock and its copy in a new state; they are on stable storage then."""
        await self.disk.drain()
        await self._put_superblock(state)
        copy = self.block.copy_at() // SECTOR
        await self.disk.write(copy, self._page // PAGE_SIZE, PAGE_SECTORS)
        await self.disk.flush()

    async def note(self):
        """Bring the superblock up to date on the way, unless the last time is still in flight."""
        if not self.disk.writing(0):
            self.block.written = self.written()
            await self._put_superblock(superblock.WRITING)

    async def close(self):
        """Leave the disk in order; a disk that cannot be left so is told, and undoes nothing."""
        if not self.disk.connected():
            return
        try:
            await self.disk.close()
        except (XenError, MemoryError) as e:
            self.say("leaving the disk: %s" % reason(e))
