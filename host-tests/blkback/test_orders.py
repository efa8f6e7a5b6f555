"""Every order of states of either end: none hangs the other, none loses what was acknowledged.

All orders of a length are played; `PVDUMP_ORDERS=6` in the environment makes it 6.
"""

import itertools
import os

import pytest
from blkback.front import (
    CLOSED,
    CLOSING,
    CONNECTED,
    FLUSH,
    INIT_WAIT,
    INITIALISING,
    OKAY,
    PAGE,
    WRITE,
    Disk,
    Xen,
)

from pvdump.blkback.paths import backend_path
from pvxen.blkback import BlkBack
from pvxen.toolstack import Toolstack
from xenpv.block.front import BlkFront
from xenpv.errors import XenError
from xenpv.guest import Guest
from xenpv.loop import SECOND
from xenpv.xenbus import Device

LENGTH = int(os.environ.get("PVDUMP_ORDERS", "0"))
GONE, NONE, RING = "gone", "x", "ring"
XVDB = 51728
MS = 1_000_000
BOUND = 300 * SECOND


def put_state(store, path, state):
    """Write any state, or have none."""
    if state == GONE:
        if store.exists(f"{path}/state"):
            store.rm(f"{path}/state")
    else:
        store.write(f"{path}/state", state)


# What the backend is, when it has had its time.
ANSWERS = {
    "1": (INIT_WAIT,),
    "3": (CONNECTED,),
    "4": (CONNECTED,),
    "5": (CLOSING, CLOSED),
    "6": (CLOSED,),
    GONE: (CLOSED,),
    NONE: (CLOSED,),
    RING: (CONNECTED,),
}


class TestFrontEnds:
    """A front end by hand goes through every order of states; "ring": Initialised, a new ring."""

    def play(self, front, order, patient):
        """Go through an order; what is written while it is connected is acknowledged and flushed.

        patient: the backend has done all it can before the next state. Returns sectors written.
        """
        written = {}
        for number, state in enumerate(order):
            if state == RING:
                front.make_ring()
            put_state(front.xen.xen.store, front.node, "3" if state == RING else state)
            if not patient:
                front.xen.xen.clock.run_one()
                continue
            front.xen.settle()
            front.xen.rest()
            assert front.back_state() in ANSWERS[state]
            if state in ("1", "6", GONE, NONE):
                assert front.mapped() == 0
            if front.back_state() == CONNECTED:
                written[8 * number] = self.write(front, 8 * number)
        return written

    def write(self, front, sector):
        data = os.urandom(PAGE)
        front.put(WRITE, sector, front.data(data))
        front.put(FLUSH)
        assert [status for _, _, status in front.kick()] == [OKAY, OKAY]
        return data

    def put_right(self, front):
        assert front.say(CLOSED) == CLOSED
        assert front.mapped() == 0
        assert front.say(INITIALISING) == INIT_WAIT
        front.connect()
        self.write(front, 0)
        front.say(CLOSED)
        front.begin_again()

    @pytest.mark.parametrize("patient", [True, False], ids=["patient", "hasty"])
    @pytest.mark.parametrize("first", ANSWERS)
    def test_no_order_of_theirs_keeps_it_from_serving_the_next(self, first, patient):
        front = Xen(seed=0 if patient else 1).fronts[0]
        front.make_ring()
        for order in itertools.product(ANSWERS, repeat=(LENGTH or 3) - 1):
            try:
                written = self.play(front, (first, *order), patient)
                for sector, data in written.items():
                    assert front.disk.stable[sector * 512 :][:PAGE] == data
                self.put_right(front)
            except (AssertionError, ValueError) as error:
                raise AssertionError(f"after {first}, {', '.join(order)}: {error}") from error
            front.make_ring()


class Ends:
    """Our front end, and a backend in whose place a stand-in goes through states."""

    def __init__(self):
        self.xen = Toolstack()
        self.domain = self.xen.create(1)
        self.back = BlkBack(self.xen)
        self.disk = Disk()
        self.back.attach(self.domain, "xvdb", self.disk)
        self.path = backend_path(1, XVDB)
        self.errors = []

    def stand_in(self, order, period):
        """The backend is killed; its node goes through an order; then another one takes over."""
        self.back.die()
        clock = self.xen.clock
        for number, state in enumerate(order):
            step = lambda state=state: put_state(self.xen.store, self.path, state)  # noqa: E731
            clock.after(number * period + 1, step)
        clock.after(len(order) * period + 1, self.take_over)

    def take_over(self):
        self.back = BlkBack(self.xen)
        self.back.serve(1, XVDB, self.disk)

    def run(self, work):
        with self.xen.running(1):
            guest = Guest()
            self.loop, self.store, self.grants = guest.loop, guest.store, guest.grants
            self.loop.run(self.main(work))

    async def main(self, work):
        await self.store.connect()
        self.device = Device(self.store, self.loop, f"device/vbd/{XVDB}")
        await self.device.find()
        await work(self)

    def front(self):
        return BlkFront(self.loop, self.grants, self.device)

    async def tried(self, doing):
        """Do what may fail, in bounded time and with an error of ours. Returns whether it did."""
        began = self.loop.now()
        try:
            await doing
        except XenError as error:
            self.errors.append(str(error))
        assert self.loop.now() - began < BOUND
        return not self.errors

    def fill(self, byte):
        self.domain.machine.ram[0x200000 : 0x200000 + PAGE] = bytes([byte]) * PAGE

    async def write(self, front, sector, byte):
        self.fill(byte)
        await front.write(sector, 0x200, 8)
        await front.flush()

    async def again(self):
        """Once the backend is there again a front end connects, and writes."""
        while self.back.is_dead:
            await self.loop.sleep(SECOND)
        front = self.front()
        await front.connect()
        await self.write(front, 16, 3)
        await front.close()

    def check(self, *bytes_):
        """These are the first bytes of pages, on stable storage."""
        assert [self.disk.stable[at * PAGE] for at in range(len(bytes_))] == list(bytes_)
        assert self.domain.machine.gnttab.mappings == []


class TestBackends:
    """Our front end while its backend goes through every order of states, and is dead."""

    STATES = (*map(str, range(1, 9)), GONE, NONE)

    def orders(self):
        return itertools.product(self.STATES, repeat=(LENGTH or 2) - 1)

    def play(self, first, period, work):
        for order in self.orders():
            ends = Ends()
            try:
                ends.run(lambda ends, order=order: work(ends, (first, *order), period))
            except (AssertionError, XenError) as error:
                raise AssertionError(f"after {first}, {', '.join(order)}: {error}") from error

    @pytest.mark.parametrize("first", STATES)
    def test_it_connects_in_the_end(self, first):
        async def work(ends, order, period):
            ends.stand_in(order, period)
            front = ends.front()
            if await ends.tried(front.connect()):
                await ends.write(front, 0, 1)
                await front.close()
            await ends.again()
            ends.check(1 if not ends.errors else 0, 0, 3)

        self.play(first, 200 * MS, work)

    @pytest.mark.parametrize("first", STATES)
    def test_what_was_in_flight_is_done_or_said_to_have_failed(self, first):
        async def work(ends, order, period):
            front = ends.front()
            await front.connect()
            await ends.write(front, 0, 1)
            ends.stand_in(order, period)
            ends.fill(2)
            await front.write(8, 0x200, 8)
            done = await ends.tried(front.flush())
            if done:
                assert ends.disk.stable[PAGE] == 2
            await ends.tried(front.close())
            await ends.again()
            kept = ends.disk.stable[PAGE]
            assert kept in ((2,) if done else (0, 2))
            ends.check(1, kept, 3)

        self.play(first, 1500 * MS, work)

    @pytest.mark.parametrize("first", STATES)
    def test_it_closes_or_says_why_not(self, first):
        async def work(ends, order, period):
            front = ends.front()
            await front.connect()
            await ends.write(front, 0, 1)
            ends.stand_in(order, period)
            await ends.tried(front.close())
            await ends.again()
            ends.check(1, 0, 3)

        self.play(first, 200 * MS, work)
