"""The dump agent: from elfcorehdr to a complete vmcore on the target, without copying.

Called by main. The order is what makes a dump safe: everything is checked before the first write;
the superblock says "writing" before the vmcore's first byte goes out, and "complete" only after a
FLUSH of the last. When something fails in between, the superblock says "partial", how far the
vmcore is known to be written, and why. The crashed kernel's own frames are granted to the backend.
"""

import hw
from xenpv import abi
from xenpv.blkfront import PAGE_SECTORS, SECTOR, BlkFront
from xenpv.errors import XenError
from xenpv.loop import SECOND
from xenpv.xenbus import Device

from . import elfcore, target
from .errors import CoreError, DumpError, TargetRefused
from .options import device_number

MIB = 1 << 20
# Frames handed to the block driver at a time; between two such pieces progress is shown.
PIECE = 1024
REPORT_EVERY = SECOND
NODE = "data/pvdump/"


async def find_disk(store, loop, name):
    """The device of ours with this name. Raises TargetRefused naming those that are there."""
    try:
        there = await store.directory("device/vbd")
    except XenError:
        there = []
    number = str(device_number(name))
    if number not in there:
        raise TargetRefused(
            "no disk %s (device/vbd/%s); this guest has %s"
            % (name, number, ", ".join(there) if there else "none")
        )
    device = Device(store, loop, "device/vbd/" + number)
    await device.find()
    return device


def now_utc():
    """Seconds since 1970. Source: xen.h, struct shared_info: wc_* is the time at system time 0."""
    page = hw.shared_info()
    base = hw.rd32(page + abi.SHARED_INFO_WC_SEC) | hw.rd32(page + abi.SHARED_INFO_WC_SEC_HI) << 32
    return base + hw.now() // SECOND


class Target:
    """A disk with a superblock of ours. disk: BlkFront, connected."""

    def __init__(self, disk):
        self.disk = disk
        self.block = None
        self._page = hw.alloc_pages(1)

    async def read_superblock(self):
        if self.disk.sectors < PAGE_SECTORS:
            raise TargetRefused("the disk has only %d sectors" % self.disk.sectors)
        await self.disk.read(0, self._page // abi.PAGE_SIZE, PAGE_SECTORS)
        await self.disk.drain()
        self.block = target.decode(hw.mem(self._page, target.SUPERBLOCK_SIZE))

    def check(self, size):
        """Refuse, before anything is written, a disk that may not or cannot hold `size` bytes."""
        block = self.block
        if self.disk.read_only:
            raise TargetRefused("the disk is read-only: give the guest write access to it")
        if block.state != target.READY:
            raise TargetRefused(
                "it holds a dump (%s): `pvdump collect` it, then `pvdump prepare` the disk again"
                % target.STATE_NAMES[block.state]
            )
        room = min(block.size, self.disk.sectors * SECTOR) - block.data_offset
        if room < size:
            raise TargetRefused(
                "it is too small: the dump has %d MiB, there is room for %d MiB"
                % ((size + MIB - 1) // MIB, max(room, 0) // MIB)
            )

    async def save(self, state):
        """Write the superblock in a new state and wait until it is written."""
        await self.disk.drain()
        self.block.state = state
        hw.mem(self._page, target.SUPERBLOCK_SIZE)[:] = self.block.encode()
        await self.disk.write(0, self._page // abi.PAGE_SIZE, 1)
        await self.disk.drain()

    def written(self):
        """Bytes of the vmcore, from its start, that the backend has acknowledged."""
        first = self.block.data_offset // SECTOR
        done = self.disk.acknowledged(first) - first
        return min(max(done, 0) * SECTOR, self.block.dump_size)


class Dump:
    """One dump. say: a function that puts a line on the console."""

    def __init__(self, xen, loop, store, grants, say):
        self.loop = loop
        self.store = store
        self.grants = grants
        self.say = say
        self._reported = 0

    async def run(self, elfcorehdr, disk_name, hole):
        """Write the whole dump. Raises DumpError or XenError with what stopped it."""
        core = elfcore.read(elfcorehdr, hole)
        self.say(
            "kernel %s, %d MiB in %d ranges, crash on vCPU %d"
            % (core.info("OSRELEASE") or "?", core.size // MIB, len(core.ranges), hw.vcpu())
        )
        device = await find_disk(self.store, self.loop, disk_name)
        disk = BlkFront(self.loop, self.grants, device)
        await disk.connect()
        try:
            goal = Target(disk)
            await self._checked(goal, disk_name, core.size)
            await self._record(goal, core)
        finally:
            await self._leave(disk)

    async def _checked(self, goal, name, size):
        try:
            await goal.read_superblock()
            goal.check(size)
        except TargetRefused as e:
            raise TargetRefused("%s refused, nothing on it was changed: %s" % (name, e))

    async def _record(self, goal, core):
        block = goal.block
        block.dump_size = core.size
        block.started = block.ended = now_utc()
        block.crash_vcpu = hw.vcpu()
        block.release = core.info("OSRELEASE")
        await goal.save(target.WRITING)
        began = hw.now()
        try:
            await self._stream(goal, core)
            await goal.disk.flush()
        except (DumpError, XenError) as e:
            await self._partial(goal, str(e))
            raise
        block.written = core.size
        block.ended = now_utc()
        await goal.save(target.COMPLETE)
        await goal.disk.flush()
        took = max(hw.now() - began, 1)
        self.say(
            "dump complete: %d MiB in %d.%d s, %d MiB/s"
            % (
                core.size // MIB,
                took // SECOND,
                took % SECOND * 10 // SECOND,
                core.size * SECOND // took // MIB,
            )
        )

    async def _stream(self, goal, core):
        """Put everything into the ring, header first; progress is shown on the way."""
        disk = goal.disk
        first = goal.block.data_offset // SECTOR
        pages = core.data // elfcore.PAGE
        try:
            header = hw.alloc_pages(pages)
        except MemoryError:
            raise CoreError("no memory for the vmcore's header of %d pages" % pages)
        hw.mem(header, core.data)[:] = elfcore.header(core)
        await disk.write(first, header // abi.PAGE_SIZE, pages * PAGE_SECTORS)
        for range in core.ranges:
            gfn, count, offset = range.frames()
            sector = first + offset // SECTOR
            while count:
                part = min(count, PIECE)
                await disk.write(sector, gfn, part * PAGE_SECTORS)
                gfn += part
                sector += part * PAGE_SECTORS
                count -= part
                await self._progress(goal)
        await disk.drain()

    async def _progress(self, goal):
        now = hw.now()
        if now - self._reported < REPORT_EVERY:
            return
        block = goal.block
        rate = 0
        if self._reported:
            rate = (goal.written() - block.written) * SECOND // (now - self._reported) // MIB
        self._reported = now
        block.written = goal.written()
        block.ended = now_utc()
        await goal.save(target.WRITING)
        line = "%d of %d MiB" % (block.written // MIB, block.dump_size // MIB)
        self.say("%s, %d MiB/s" % (line, rate))
        await self.store.write(NODE + "progress", line)

    async def _partial(self, goal, why):
        """Record on the target, if it still takes it, how far the dump got and why it ended."""
        block = goal.block
        block.reason = why
        block.ended = now_utc()
        try:
            await goal.disk.settle()
            block.written = goal.written()
            await goal.save(target.PARTIAL)
            await goal.disk.flush()
        except XenError as e:
            self.say("the superblock could not be set to partial: %s" % e)
        self.say("dump partial: %d of %d MiB" % (block.written // MIB, block.dump_size // MIB))

    async def _leave(self, disk):
        """The disk is left in order; that it cannot be does not undo a dump."""
        try:
            await disk.close()
        except XenError as e:
            self.say("leaving the disk: %s" % e)
