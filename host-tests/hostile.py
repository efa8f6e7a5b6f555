"""A xenstore server that lies, on a page that changes while it is read; and what it may not cause.

play() runs a client against it, directed by a string of bytes, and returns what was done and seen.
It raises AssertionError when the client leaves the page, writes what is the server's, or goes on
for ever, and lets through whatever the client raises that is no XenError. Virtual time throughout:
the same bytes give the same run.
"""

import contextlib
from collections import Counter

from guard import CONNECTION, INDEXES, PAGE, REPLIES, REQUESTS, RSP_CONS, Guard, guarded
from liar import BELOW, TYPES, Liar, Plan
from stores import Setup

import hw
from xenpv import abi, xs_ring, xs_wire
from xenpv.errors import XenError
from xenpv.evtchn import EventChannels
from xenpv.loop import SECOND
from xenpv.schedpoll import PollLoop
from xenpv.xenstore import Xenstore

# A run has some dozen requests; each that is not answered takes 5 s of virtual time.
TIME = 3000 * SECOND
OPERATIONS = 16
STARTS = ((0, 0), (0x3B5, 0x349), (0xFFFFFFF0, 0xFFFFFFFE))


class Hostile:
    """Does to the page what the plan says, a number of the client's accesses apart."""

    def __init__(self, setup, plan):
        self.setup = setup
        self.plan = plan
        self.done = Counter()
        self._rest = plan.byte()

    def __call__(self):
        if self.plan.over:
            return
        self._rest -= 1
        if self._rest < 0:
            self._act()
            self._rest = self.plan.byte()

    def _act(self):
        action = self.plan.choose(ACTIONS)
        self.done[action.__name__] += 1
        action(self)
        self.setup.machine.evtchn.send(0, self.setup.ring.port)

    def index_set(self):
        hw.wr32(self.plan.choose(INDEXES), self.plan.u32())

    def index_moved(self):
        at = self.plan.choose(INDEXES)
        hw.wr32(at, (hw.rd32(at) + self.plan.byte()) & 0xFFFFFFFF)

    def index_moved_back(self):
        at = self.plan.choose(INDEXES)
        hw.wr32(at, (hw.rd32(at) - self.plan.byte()) & 0xFFFFFFFF)

    def field_set(self):
        hw.wr32(PAGE + 2064 + 4 * (self.plan.byte() % 3), self.plan.u32())

    def bytes_changed(self):
        at = self.plan.choose((REPLIES, REQUESTS)).start + 4 * self.plan.byte()
        raw = self.plan.bytes()[: PAGE + 2048 - at]
        hw.mem(at, len(raw))[:] = raw

    def garbage(self):
        raw = self.plan.bytes() or b"\xff"
        hw.mem(REPLIES.start, 1024)[:] = (raw * (1024 // len(raw) + 1))[:1024]
        hw.wr32(REPLIES.start + 1036, (hw.rd32(RSP_CONS) + 1024) & 0xFFFFFFFF)

    def packet(self):
        flying = list(self.setup.flying())
        req_id = self.plan.choose(flying) if flying else self.plan.u32()
        raw = xs_wire.header(self.plan.choose(TYPES), req_id, 0, b"")[:12]
        payload = self.plan.bytes()
        length = self.plan.u32() if self.plan.byte() % 4 == 0 else len(payload)
        self._put(raw + length.to_bytes(4, "little") + payload)

    def event(self):
        self._put(self.setup.event(self.plan).encode())

    def _put(self, raw):
        with contextlib.suppress(XenError):
            self.setup.ring._replies.write(raw)


ACTIONS = (
    *(Hostile.index_set, Hostile.index_moved, Hostile.index_moved_back, Hostile.field_set),
    *(Hostile.bytes_changed, Hostile.garbage),
    *([Hostile.packet] * 4 + [Hostile.event] * 6),
)


class Loop(PollLoop):
    """A loop that has an end."""

    def _turn(self):
        super()._turn()
        assert hw.now() < self.end, "the client waits for ever"


class Attacked(Setup):
    """A guest whose client goes through the guard."""

    def __init__(self, plan):
        features = plan.byte() % 8
        super().__init__(features=features, start=plan.choose(STARTS))
        kind = plan.byte() % 3
        if kind == 1:
            self.ring.connection = Liar(self, plan)
        self.ring.deaf = kind == 2
        self.kind = ("honest", "liar", "deaf")[kind]
        self.loop = Loop(self.xen, EventChannels(self.xen))
        self.loop.end = hw.now() + TIME
        self.store = Xenstore(self.loop, xs_ring.RingTransport(self.xen, self.loop))

    def flying(self):
        session = self.store._session
        return session._flying if session else ()

    def event(self, plan):
        """An event of a watch that there is, if there is one."""
        token = plan.choose(list(self.store._watches) or [b"token"])
        payload = b"data" + plan.choose(BELOW) + b"\0" + token + b"\0"
        return xs_wire.Packet(abi.XS_WATCH_EVENT, 0, 0, payload)

    def repair(self):
        """Begin anew with a ring that can be used, as a toolstack may make it."""
        for at in INDEXES:
            hw.wr32(at, 0)
        hw.wr32(CONNECTION, 0)
        hw.wr32(CONNECTION + 4, 0)
        self.ring.broken = None
        self.ring.connection.reset()


async def use(setup, plan, outcomes):
    """Operations as the plan chooses them, a connection made anew when one has ended.

    Each may fail, and with a XenError only.
    """
    store = setup.store

    async def together():
        many = [attempt(store.read(f"data/{i}"), outcomes) for i in range(8)]
        many.append(attempt(store.write("data/x", b"v" * 1500), outcomes))
        await store.loop.gather(many)

    async def large():
        raw = b"data/x\0" + b"v" * 4000
        late = [store.request(abi.XS_WRITE, raw, "write", 0, SECOND) for _ in range(8)]
        await store.loop.gather([attempt(one, outcomes) for one in late])

    async def work(t):
        await t.write("data/t", "1")
        return await t.read_int("data/t", 0)

    async def watched():
        watch = await store.watch("data", limit=4)
        try:
            for _ in range(plan.byte() % 12):
                await watch.next(SECOND)
        finally:
            await watch.close()

    async def cancelled():
        task = store.loop.spawn(attempt(store.read("data/x"), outcomes))
        await store.loop.sleep(plan.byte())
        task.cancel()

    operations = (
        *(together, watched, watched, cancelled, store.reset_watches, store.get_quota, store.close),
        *(lambda: store.directory("data"), lambda: store.get_perms("data")),
        *(lambda: store.transact(work, 3), lambda: store.read_int("data/n", 0)),
        *(lambda: store.get_domain_path(1), lambda: store.is_domain_introduced(1)),
        *(lambda: store.control("help"), lambda: store.read_text("data/x", "")),
        *(store.get_feature, lambda: store.get_quota("watches"), store.reset_watches),
        *(lambda: store.watch("data", 1), lambda: store.set_perms("data", [("n", 1)])),
        *(lambda: store.mkdir("data/d"), lambda: store.rm("data/d"), large),
    )
    await attempt(store.watch("data"), outcomes)  # before there is a connection
    for _ in range(OPERATIONS):
        if plan.over:
            break
        if not store.connected():
            if plan.byte() & 1:
                setup.repair()
            await attempt(store.connect(), outcomes)
        await attempt(plan.choose(operations)(), outcomes)
    await attempt(store.close(), outcomes)


async def attempt(work, outcomes):
    try:
        await work
    except XenError as error:
        str(error).encode("ascii")  # fit for any console
        outcomes[type(error).__name__] += 1
    else:
        outcomes["fine"] += 1


def play(data):
    """Run a client against the server that `data` describes. Returns a Counter."""
    plan = Plan(data)
    setup = Attacked(plan)
    hostile = Hostile(setup, plan)
    guard = Guard(hostile)
    outcomes = Counter()
    with guarded(guard):
        setup.loop.run(use(setup, plan, outcomes))
    outcomes[setup.kind] += 1
    outcomes["accesses"] += guard.accesses
    return outcomes + hostile.done
