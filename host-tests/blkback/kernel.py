"""A kernel of a story: our front end, and what is asked of it while faults happen.

Made by Story, for each kernel. The rules: no operation takes longer than BOUND; where only what is
HELPED happens none of them fails, but for connecting and closing, which wait for a backend for some
seconds only; where one may fail its error says what went wrong; and once all is well again the disk
can be connected and used.
"""

import re

from blkback.world import GUEST, MS

from pvxen.machine import Shutdown
from xenpv import abi
from xenpv.block.front import BlkFront
from xenpv.block.negotiate import Limits
from xenpv.block.supervise import CONNECT_TIMEOUT
from xenpv.errors import XenError
from xenpv.guest import Guest
from xenpv.loop import SECOND
from xenpv.xenbus import Device

US = 1000
PAGE, SECTOR = 4096, 512
FRAMES = range(0x200, 0x7C0)  # data
BOUND = CONNECT_TIMEOUT + 60 * SECOND
OPERATIONS = ("write",) * 8 + ("read",) * 3 + ("flush",) * 2 + ("drain", "discard", "again", "wait")
PATH = "device/vbd/51728"
SAYS = re.compile(
    "(read|write|barrier|flush|discard) of sector [0-9]+ failed: status -[12] "
    "|no request completed for [0-9]+ s, [0-9]+ in flight"
    "|backend .* is .+ after [0-9]+ s, .+ expected"
    "|went .+ instead of Connected"
    "|the backend left Connected, its state is .*it was not back within [0-9]+ s: "
    "|response (to|with) .+"
    "|rsp_prod 0x[0-9a-f]+ announces [0-9]+ responses to [0-9]+ requests"
    "|xenstore .*: (ENOENT|EACCES)"
    "|xenstore .*state: a decimal number expected, '"
)


class Kernel:
    """A kernel. ending: "closed", or how it crashes: "kexec", "soft reset", "power"."""

    def __init__(self, story, world, ending):
        self.story = story
        self.world = world
        self.ending = ending
        self.draw = story.draw
        self.sectors = story.sectors
        guest = Guest()
        self.loop, self.store, self.grants = guest.loop, guest.store, guest.grants
        self._buffers = self.draw.choice([0, 0, 1, 2, 8])
        pages = self.draw.choice([1, 2, 4, 8, 16])
        self._limits = (pages, self.draw.choice([1, 3, 32, 512]), self.draw.choice([1, 5, 11, 256]))
        self._frame = FRAMES.start
        self._reads = []  # (sector, count, first frame), not yet looked at
        self._front = None
        self._wrote = False  # with this front end, and not flushed
        self._failed = False

    async def main(self, operations):
        draw, clock = self.draw, self.world.clock
        await self.store.connect()
        grants, (ports, _) = self.grants.free(), self._ports()
        await self._do("connect")
        crash = draw.randrange(operations) if self.ending != "closed" else -1
        for i in range(operations):
            if i == crash:
                await self._do("flush")
                # What that flush covered has to be there, whenever it happens.
                clock.after(self._moment(), self._crash)
            if self.story.happens and draw.random() < 0.3:
                name = draw.choice(self.story.happens)
                self.world.later(self._moment(), lambda name=name: self.world.happen(name))
            if draw.random() < 0.3:
                self.world.later(self._moment(), self.world.mischief)
            await self._do(draw.choice(OPERATIONS))
        while self.ending != "closed":
            await self.loop.sleep(SECOND)
        self.world.heal()
        await self._do("flush")
        await self._do("close")
        self._all_is_given_back(grants, ports)

    def _moment(self):
        return self.world.some(US, 100 * MS)

    def _crash(self):
        reset = self.ending == "soft reset"
        reason = abi.SHUTDOWN_soft_reset if reset else abi.SHUTDOWN_crash

        def dead():
            raise Shutdown(reason)

        # What is left of the kernel's coroutines waits for nothing any more.
        self.loop.now = dead
        self.world.machine.shutdown(reason)

    def _ports(self):
        return len(self.world.xen.evtchn.of(GUEST)), self.world.ports_of_dom0()

    def _all_is_given_back(self, grants, ports):
        self.world.settle()
        assert self.world.machine.gnttab.mappings == []
        assert self._ports() == (ports, self.world.ports)
        assert self.grants.free() + self.grants.set_aside == grants
        assert self.story.harmful or self._failed or self.grants.set_aside == 0
        self.sectors.check(0, self.world.disk.data)

    # Operations, and what becomes of them.

    async def _do(self, name):
        began = self.loop.now()
        why = await self._fault(getattr(self, "_" + name)())
        if why:
            may_fail = self.story.harmful or name in ("connect", "again", "close")
            assert may_fail, f"{name}: {why}"
            assert SAYS.search(why), f"{name}: an error that says nothing: {why}"
            self.story.errors.append(why)
            self._failed = True
            await self._recover()
        took = self.loop.now() - began
        assert took < BOUND, f"{name} took {took // SECOND} s"

    async def _fault(self, doing):
        """Do something. Returns what its error says, "" when there was none."""
        try:
            await doing
        except XenError as error:
            return str(error)
        return ""

    async def _recover(self):
        """All is well again: the disk goes on, or can be connected."""
        self.sectors.failed()
        self._reads.clear()
        self.world.heal()
        if self._front is not None:
            if not await self._fault(self._front.settle()):
                return
            # It may not come to be told; connecting is what counts.
            await self._fault(self._front.close())
            self._front = None
        for _ in range(3):
            why = await self._fault(self._connect())
            if not why:
                return
        raise AssertionError(f"all is well again, but it does not connect: {why}")

    async def _connect(self):
        device = Device(self.store, self.loop, PATH)
        await device.find()
        limits = Limits(*self._limits)
        front = BlkFront(self.loop, self.grants, device, buffers=self._buffers, limits=limits)
        await front.connect()
        self._front = front
        self._wrote = False

    async def _close(self):
        await self._drain()
        front, self._front = self._front, None
        await front.close()
        if self._wrote:
            self._flushed(front)

    async def _again(self):
        front = self._front
        await self._close()
        await front.connect()
        self._front = front

    async def _wait(self):
        await self.loop.sleep(self.world.some(US, SECOND))

    async def _drain(self):
        await self._front.drain()
        self._acknowledged()

    def _acknowledged(self):
        for sector, count, gfn in self._reads:
            self.sectors.check(sector, self._memory(gfn, count))
        self._reads.clear()
        self._frame = FRAMES.start
        self.sectors.acknowledged()
        self.world.drained()

    async def _flush(self):
        await self._front.flush()
        self._acknowledged()
        self._flushed(self._front)

    def _flushed(self, front):
        if front.properties.flushes:
            self.sectors.flushed()
        self._wrote = False

    async def _write(self):
        sector, count = self._place()
        gfn = await self._frames(count)
        data = self.sectors.write(sector, count)
        self.world.machine.ram[gfn * PAGE : gfn * PAGE + len(data)] = data
        self._wrote = True
        await self._front.write(sector, gfn, count)

    async def _discard(self):
        if self._front.properties.discards:
            sector, count = self._place()
            self.sectors.discard(sector, count)
            await self._front.discard(sector, count)

    async def _read(self):
        alone = self.draw.random() < 0.5
        if alone:
            await self._drain()
        sector, count = self._place()
        gfn = await self._frames(count)
        losses = self.sectors.losses
        await self._front.read(sector, gfn, count)
        self._reads.append((sector, count, gfn))
        if alone:
            await self._drain()
            # It may have been done before a loss that came before its answer.
            if self.sectors.losses == losses:
                self.sectors.found(sector, self._memory(gfn, count))

    def _place(self):
        """Sectors in whole units of the disk: the first, and how many."""
        unit = self._front.sector_size // SECTOR
        count = self.draw.randint(1, self.draw.choice([8, 64, 200]) // unit)
        return self.draw.randrange(self.sectors.count // unit - count) * unit, count * unit

    async def _frames(self, count):
        """The first of frames for so many sectors, which nothing in flight uses."""
        pages = -(-count * SECTOR // PAGE)
        if self._frame + pages > FRAMES.stop:
            await self._drain()
        self._frame += pages
        return self._frame - pages

    def _memory(self, gfn, count):
        return self.world.machine.ram[gfn * PAGE : gfn * PAGE + count * SECTOR]
