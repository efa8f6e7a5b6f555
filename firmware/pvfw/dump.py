"""The dump agent: from elfcorehdr to a complete vmcore on the target, without copying.

Called by main. The order is what makes a dump safe: everything is checked before the first write;
the superblock says "writing" before the vmcore's first byte goes out, and "complete" only after a
FLUSH of the last. When something fails in between, the superblock says "partial", how far the
vmcore is known to be written, and why. The crashed kernel's own frames are granted to the backend.
Where xenstore fails the dump goes on: the disk decides.
"""

import hw
from xenpv import abi
from xenpv.block.blkif import PAGE_SECTORS, SECTOR
from xenpv.errors import XenError
from xenpv.loop import SECOND

from . import choose, elfcore, superblock
from . import target as disk
from .errors import CoreError, DumpError
from .target import MIB

# Frames handed to the block driver at a time; between two such pieces progress is shown.
PIECE = 1024
REPORT_EVERY = SECOND
NODE = "data/pvdump/"


class Dump:
    """One dump. say: a function that puts a line on the console."""

    def __init__(self, xen, loop, store, grants, say):
        self.xen = xen
        self.loop = loop
        self.store = store
        self.grants = grants
        self.say = say
        self._tells = True
        self._reported = 0
        self._reported_size = 0

    async def run(self, elfcorehdr, disks, hole):
        """Write the whole dump to one of the disks named, or, if none is, of those there are.

        Raises DumpError or XenError with what stopped it.
        """
        core = elfcore.read(elfcorehdr, hole)
        for problem in core.problems:
            self.say(problem)
        self.say(
            "kernel %s, %d MiB in %d ranges, crash on vCPU %d"
            % (core.info("OSRELEASE") or "?", core.size // MIB, len(core.ranges), hw.vcpu())
        )
        name = disks[0] if len(disks) == 1 else await self._choose(disks, core.size)
        device = await disk.find(self.store, self.loop, name)
        goal = disk.Target(self.xen, self.loop, self.grants, device, name, self.say)
        try:
            await goal.open()
            goal.check(core.size)
            await goal.probe()
            await self._record(goal, core)
        finally:
            await goal.close(self.say)

    async def _choose(self, disks, size):
        name = await choose.choose(self.store, self.grants, disks, size, self.say)
        self.say("dumping to %s" % name)
        return name

    async def _record(self, goal, core):
        block = goal.block
        block.dump_size = core.size
        block.started = disk.now_utc()
        block.crash_vcpu = hw.vcpu()
        block.release = core.info("OSRELEASE")
        await goal.save(superblock.WRITING)
        began = self._reported = hw.now()
        try:
            await self._stream(goal, core)
            await goal.disk.flush()
            block.written = core.size
            await goal.save(superblock.COMPLETE)
        except Exception as e:
            # Whatever it is: what is on the disk so far must be found there.
            await self._partial(goal, str(e) or repr(e))
            raise
        self._complete(goal, core, max(hw.now() - began, 1))

    def _complete(self, goal, core, took):
        if goal.holes:
            self.say("%d pages had no memory behind them: zeros in their place" % goal.holes)
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
        first = goal.first()
        pages = core.data // elfcore.PAGE
        try:
            header = hw.alloc_pages(pages)
            hw.mem(header, core.data)[:] = elfcore.header(core)
        except MemoryError:
            raise CoreError("no memory for the vmcore's header of %d pages" % pages)
        await goal.disk.write(first, header // abi.PAGE_SIZE, pages * PAGE_SECTORS)
        for range in core.ranges:
            gfn, count, offset = range.frames()
            sector = first + offset // SECTOR
            while count:
                part = min(count, PIECE)
                await goal.write(sector, gfn, part)
                gfn += part
                sector += part * PAGE_SECTORS
                count -= part
                await self._progress(goal)
        await goal.disk.drain()

    async def _progress(self, goal):
        now = hw.now()
        took = now - self._reported
        if took < REPORT_EVERY:
            return
        done = goal.written()
        rate = (done - self._reported_size) * SECOND // took // MIB
        self._reported = now
        self._reported_size = done
        await goal.note()
        line = "%d of %d MiB" % (done // MIB, goal.block.dump_size // MIB)
        self.say("%s, %d MiB/s" % (line, rate))
        await self._tell("progress", line)

    async def _tell(self, key, value):
        """Write a node of ours; once that has failed it is not tried again."""
        if not self._tells:
            return
        try:
            await self.store.write(NODE + key, value)
        except XenError as e:
            self._tells = False
            self.say("%s; the dump goes on" % e)

    async def _partial(self, goal, why):
        """Record on the target, if it still takes it, how far the dump got and why it ended."""
        block = goal.block
        block.reason = why
        try:
            await goal.disk.settle()
            block.written = goal.written()
            await goal.save(superblock.PARTIAL)
        except (DumpError, XenError) as e:
            self.say("the superblock could not be set to partial: %s" % e)
            return
        self.say("dump partial: %d of %d MiB" % (block.written // MIB, block.dump_size // MIB))
