"""A front end that does anything at any time, by seed: the next one connects all the same."""

import contextlib
import random

import pytest
from blkback.front import CLOSED, FLUSH, INIT_WAIT, INITIALISING, OKAY, PAGE, WRITE, Xen

from pvxen.blkback import BlkBack
from pvxen.evtchn import XenRefuses
from xenpv import abi
from xenpv.errors import RingCorrupt

MS = 1_000_000
XVDB = 51728


def restart(front, gently):
    """The backend's process ends and another takes its disk up. gently: it lets go itself."""
    xen = front.xen
    if gently:
        front.device.close()
        xen.settle()
    xen.back.die()
    xen.back = BlkBack(xen.xen)
    front.device = xen.back.serve(front.domain.domid, XVDB, front.disk)


class TestStates:
    """A front end by hand that does anything at any time."""

    def actions(self, front, draw):
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
            "restart": lambda: restart(front, draw.random() < 0.5),
            "time": lambda: front.xen.xen.clock.advance(front.xen.xen.clock.now + 20 * MS),
            "settle": front.xen.settle,
        }

    @pytest.mark.fuzz("block-back")
    def test_after_anything_it_connects_again(self, fuzz):
        for seed in fuzz.seeds(200):
            self.play(seed)

    def play(self, seed):
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
            xen.back.store.remove(f"{front.node}/{key}")
        xen.settle()
        assert front.say(CLOSED) == CLOSED
        assert front.mapped() == 0
        assert front.say(INITIALISING) == INIT_WAIT
        assert front.connect().status(FLUSH) == OKAY
