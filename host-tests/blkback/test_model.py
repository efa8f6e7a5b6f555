"""Any order of states, faults and requests, by seed: nothing hangs and nothing flushed is lost."""

import contextlib
import random

import pytest
from blkback.front import CLOSED, FLUSH, INIT_WAIT, INITIALISING, OKAY, PAGE, WRITE, Disk, Xen

from pvdump.blkback.embedded import BlkBack
from pvdump.blkback.ports import Stalled
from pvdump.xen.evtchn import XenRefuses
from pvdump.xen.toolstack import Toolstack
from xenpv import abi
from xenpv.blkfront import BlkFront
from xenpv.errors import RingCorrupt
from xenpv.evtchn import EventChannels
from xenpv.gnttab import GrantTable
from xenpv.hypercall import Hypercalls
from xenpv.loop import SECOND
from xenpv.schedpoll import PollLoop
from xenpv.xenbus import Device
from xenpv.xenstore import Xenstore
from xenpv.xs_ring import RingTransport

MS = 1_000_000
PAGES = 96  # of the disk that are used
GFN = 0x200


def restart(back, device, sink, gently):
    """The backend's process ends and another takes up its devices. gently: it lets go itself."""
    instance, device.instance = device.instance, None
    if instance is not None and gently:
        instance.disconnect()
        instance.step()
    elif instance is not None:
        # As its kernel does for a process that was killed, in the middle of whatever.
        instance._connection.close()
        instance.state = type(instance.state).DISCONNECTED
    back._forget(device.path)
    domid, number = device.name.split("/")
    return back.serve(int(domid), int(number), sink)


class TestStates:
    """A front end by hand that does anything at any time."""

    def actions(self, front, draw):
        back = front.xen.back
        return {
            "state": lambda: front.write("state", draw.randrange(9)),
            "ring": lambda: front.make_ring(draw.choice([1, 1, 2, 4])),
            "request": lambda: front.put(WRITE, 8, front.data(bytes(PAGE))),
            "kick": front.kick,
            "corrupt": lambda: front.ring.memory.wr32(abi.SRING_REQ_PROD, draw.getrandbits(32)),
            "key": lambda: front.write(
                draw.choice(["ring-ref", "event-channel", "protocol", "feature-persistent"]),
                draw.choice(["1", "0", "x", "99999", "x86_32-abi"]),
            ),
            "stall": lambda: setattr(front.disk, "stalled", not front.disk.stalled),
            "restart": lambda: setattr(
                front, "device", restart(back, front.device, front.disk, draw.random() < 0.5)
            ),
            "time": lambda: front.xen.xen.clock.advance(front.xen.xen.clock.now + 20 * MS),
            "settle": front.xen.settle,
        }

    @pytest.mark.parametrize("seed", range(1, 201))
    def test_after_anything_it_connects_again(self, seed):
        draw = random.Random(seed)
        xen = Xen(seed=seed)
        front = xen.fronts[0]
        front.make_ring()
        actions = self.actions(front, draw)
        for name in draw.choices(list(actions), k=40):
            if name in ("request", "kick") and front.ring.free() == 0:
                continue
            # What the front end itself finds broken is its own doing.
            with contextlib.suppress(RingCorrupt, XenRefuses):
                actions[name]()
        front.disk.stalled = False
        for key in ("ring-ref", "ring-page-order", "protocol", "feature-persistent"):
            xen.back.nodes.remove(f"{front.node}/{key}")
        xen.settle()
        assert front.say(CLOSED) == CLOSED
        assert front.mapped() == 0
        assert front.say(INITIALISING) == INIT_WAIT
        assert front.connect().status(FLUSH) == OKAY


class Unsteady(Disk):
    """Stalls now and then, in the middle of what its clock's seed draws."""

    draw = random.Random(0)

    def _begin(self, name, offset=0, lengths=()):
        if self.draw.random() < 0.1:
            raise Stalled("now and then")
        super()._begin(name, offset, lengths)


class Story:
    """Our front end writes, reads and flushes while the backend is restarted under it."""

    def __init__(self, seed):
        self.draw = random.Random(seed)
        self.xen = Toolstack(seed)
        self.domain = self.xen.create(1)
        self.back = BlkBack(self.xen)
        self.disk = Unsteady()
        self.disk.draw = self.draw
        self.device = self.back.attach(self.domain, "xvdb", self.disk)
        self.content = bytearray(PAGES * PAGE)
        self.uncertain = set()  # pages that are being written
        self.buffers = self.draw.choice([0, 0, 4])

    def restart(self):
        self.device = restart(self.back, self.device, self.disk, self.draw.random() < 0.5)

    def run(self, steps):
        with self.xen.running(1):
            xen = Hypercalls()
            self.loop = PollLoop(xen, EventChannels(xen))
            self.store = Xenstore(self.loop, RingTransport(xen, self.loop))
            self.grants = GrantTable(xen)
            self.loop.run(self.main(steps))

    async def connect(self):
        device = Device(self.store, self.loop, "device/vbd/51728")
        await device.find()
        front = BlkFront(self.loop, self.grants, device, buffers=self.buffers)
        await front.connect()
        return front

    async def main(self, steps):
        await self.store.connect()
        front = await self.connect()
        for _ in range(steps):
            name = self.draw.choice(["write"] * 5 + ["read", "flush", "again", "restart", "wait"])
            if name == "write":
                await self.write(front)
            elif name == "read":
                await self.read(front)
            elif name == "flush":
                await self.flush(front)
            elif name == "again":
                await front.drain()
                self.uncertain.clear()
                await front.close()
                front = await self.connect()
            elif name == "restart":
                self.xen.clock.after(self.draw.randrange(5 * MS), self.restart)
            else:
                await self.loop.sleep(self.draw.randrange(10 * MS))
        await self.flush(front)
        await front.close()

    async def write(self, front):
        count = self.draw.randint(1, 40)
        page = self.draw.randrange(PAGES - count)
        pages = set(range(page, page + count))
        if pages & self.uncertain:
            await front.drain()
            self.uncertain.clear()
        data = self.draw.randbytes(count * PAGE)
        # Each page has its own frame, so what is in flight keeps its content.
        at = (GFN + page) * PAGE
        self.domain.machine.ram[at : at + len(data)] = data
        self.content[page * PAGE : page * PAGE + len(data)] = data
        self.uncertain |= pages
        await front.write(page * 8, GFN + page, count * 8)

    async def read(self, front):
        await front.drain()
        self.uncertain.clear()
        count = self.draw.randint(1, 40)
        page = self.draw.randrange(PAGES - count)
        await front.read(page * 8, GFN + PAGES, count * 8)
        await front.drain()
        at = (GFN + PAGES) * PAGE
        found = self.domain.machine.ram[at : at + count * PAGE]
        assert found == self.content[page * PAGE : (page + count) * PAGE]

    async def flush(self, front):
        await front.flush()
        self.uncertain.clear()
        assert self.disk.stable[: len(self.content)] == self.content


@pytest.mark.parametrize("seed", range(1, 61))
def test_what_was_flushed_is_on_the_disk_whatever_happened_meanwhile(seed):
    story = Story(seed)
    story.run(40)
    assert story.device.counts.errors == 0
    assert story.xen.clock.now < 4000 * SECOND
