"""The block front end when its backend's state becomes any other at any moment, by seed."""

import functools
import random

import pytest
from fixtures.stack import XVDB, Stack

from pvxen.guest import EmbeddedGuest
from pvxen.sink import Memory
from xenpv import abi
from xenpv.block.front import BlkFront
from xenpv.errors import XenError
from xenpv.loop import SECOND
from xenpv.xenbus import Device

STATES = ("", "x", "99", *map(str, range(10)))
BOUND = 400 * SECOND
PAGES = 40
GFN = 0x200


class Hang(BaseException):
    """It took longer than it may."""


def use(jump=None, state=""):
    """Connect, write, flush, close; at hypercall number `jump` the backend's node says `state`.

    Returns how many hypercalls there were, and the XenError that ended it.
    """
    guest = EmbeddedGuest()
    machine, sink = guest.machine, Memory(PAGES * 4096)
    device = guest.disk("xvdb", sink, latency=3 * SECOND)
    data = random.Random(1).randbytes(PAGES * 4096)
    machine.ram[GFN * 4096 : GFN * 4096 + len(data)] = data
    whole = machine.hypercall

    def hypercall(nr, args):
        if machine.hypercalls == jump:
            guest.store.write(f"{device.path}/state", state)
        return whole(nr, args)

    machine.hypercall = hypercall

    def hang():
        raise Hang

    machine.clock.after(BOUND, hang)
    stack = Stack()
    loop, grants = stack.loop, stack.grants
    disk = BlkFront(loop, grants, Device(stack.store, loop, XVDB))

    async def main():
        try:
            await disk.device.find()
            await disk.connect()
            await disk.write(0, GFN, PAGES * 8)
            await disk.flush()
            assert sink.data == data
        finally:
            if disk.connected():
                await disk.close()

    error = None
    try:
        stack.run(main)
    except XenError as e:
        error = e
    table = machine.gnttab
    lent = [table.entry(ref) for ref in range(abi.GNTTAB_NR_RESERVED_ENTRIES, table.entries())]
    assert sum(bool(flags & 3) for flags, _, _ in lent) == grants.set_aside
    return machine.hypercalls, error


@functools.cache
def hypercalls():
    count, error = use()
    assert error is None
    return count


@pytest.mark.fuzz("block-states")
def test_a_state_that_jumps_does_no_harm_or_is_reported(fuzz):
    for seed in fuzz.seeds(100):
        draw = random.Random(seed)
        state, jump = draw.choice(STATES), draw.randrange(hypercalls())
        _, error = use(jump, state)
        assert error is None or "device/vbd/51728" in str(error), (state, jump)
