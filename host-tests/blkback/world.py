"""A host between two losses of power: a guest with a disk, a hostile neighbour, a backend, faults.

Made by stories, which name the faults; a world draws how long each lasts. HELPED are faults that a
front end must not notice; after HARMFUL ones it may report an error. The rule: heal() ends every
fault.
"""

import errno
import math
import struct

from blkback.conditions import Conditions, Killed, Process
from blkback.front import PAGE, WRITE, Front

from pvdump.blkback.paths import backend_path
from pvdump.blkback.ports import Stalled
from pvxen.evtchn import XenRefuses
from pvxen.machine import DOM0
from pvxen.toolstack import SERVERS, Toolstack
from xenpv import abi
from xenpv.errors import RingCorrupt
from xenpv.loop import SECOND

MS = 1_000_000
GUEST, NEIGHBOUR = 1, 2
XVDB = 51728
HELPED = ("stall", "memory", "restart", "leave", "kill", "events", "error")
HARMFUL = (
    *("absent", "full", "flush", "lose", "long", "detach", "offline"),
    *("back-state", "front-state", "responses", "requests"),
)


class World:
    """disk, other: CachedDisk, of the guest and its neighbour; sectors: told when disk loses."""

    def __init__(self, seed, draw, disk, other, sectors):
        self.draw = draw
        self.xen = Toolstack(seed, server=draw.choice(SERVERS))
        self.clock = self.xen.clock
        events = draw.choice(["2l"] * 6 + ["fifo", "dead"])
        # A guest that gets no events polls a thousand times a second, which takes us long.
        self._longest = 200 * SECOND if events == "2l" else SECOND // 5
        self.domain = self.xen.create(
            GUEST,
            size=64 << 20,
            events=events,
            gnttab_version=draw.choice([1, 2]),
            server_features=draw.randrange(2),
        )
        self.machine = self.domain.machine
        self.ports = self.ports_of_dom0()
        self.conditions = Conditions(self.clock, draw)
        self._offer_less()
        self.disk = disk
        self._sectors = sectors
        self.disks = {GUEST: disk, NEIGHBOUR: other}
        disk.strike = self._strike
        other.strike = lambda name: Stalled("busy") if draw.random() < 0.3 else None
        self._strikes = []
        self.errors_left = 0
        self._stalled = False
        self._timers = []
        self._processes = []
        self._begin()
        self.back.attach(self.domain, "xvdb", disk)
        domain = self.xen.create(NEIGHBOUR, size=4 << 20)
        self.hostile = Front(self, domain, self.back.attach(domain, "xvdb", other), other)
        self.hostile.make_ring()
        self._mischief = 40
        self.settle()

    def _offer_less(self):
        draw, conditions = self.draw, self.conditions
        keys = ("max-ring-page-order", "max-ring-pages", "max-requests", "feature-persistent")
        keys += ("feature-max-indirect-segments", "feature-discard")
        conditions.withheld = {key for key in keys if draw.random() < 0.2}
        if draw.random() < 0.2:
            conditions.withheld.add("feature-flush-cache")
        conditions.lowered = {}
        if draw.random() < 0.3:
            conditions.lowered["feature-max-indirect-segments"] = str(draw.randint(0, 64))

    def _begin(self):
        self.back = Process(self.xen, self.conditions)
        self._processes.append(self.back)

    def ports_of_dom0(self):
        """How many of domain 0's are the guest's other ends."""
        return sum(port.remote_domid == GUEST for port in self.xen.evtchn.of(DOM0))

    def log(self):
        """The lines that the backend's processes wrote."""
        return [line for process in self._processes for line in process.log]

    def settle(self):
        self.xen.settle()

    def rest(self):
        """Let pass what a device rests between two connections."""
        self.clock.advance(self.clock.now + SECOND)
        self.settle()

    def some(self, least, most):
        """A time between two, short ones as likely as long ones (ns)."""
        most = min(most, self._longest)
        return int(math.exp(self.draw.uniform(math.log(least), math.log(most))))

    # Faults of the disk.

    def _strike(self, name):
        if self._stalled:
            return Stalled("the disk is busy")
        for i, (names, fault) in enumerate(self._strikes):
            if name in names:
                del self._strikes[i]
                return fault()
        return None

    def _soon(self, names, fault):
        """The next I/O of one of these names fails so."""
        self._strikes.append((names, fault))

    # What happens.

    def happen(self, name):
        """Begin something now; it ends by itself, or by heal()."""
        getattr(self, "_" + name.replace("-", "_"))()

    def later(self, ns, step):
        """Something is to happen in so many ns, unless all is healed by then."""
        self._timers.append(self.clock.after(ns, step))

    def heal(self):
        """Everything is as it should be, and stays so."""
        for timer in self._timers:
            self.clock.cancel(timer)
        self._timers.clear()
        self._strikes.clear()
        self._stalled = False
        self.conditions.clear()
        self._return()
        if self.xen.store.read(f"{self.path}/online", "") != "1":
            self._attach()

    @property
    def path(self):
        return backend_path(GUEST, XVDB)

    def _stall(self, most=20 * SECOND):
        self._stalled = True
        self.later(self.some(MS, most), lambda: setattr(self, "_stalled", False))

    def _long(self):
        self._stall(100 * SECOND)

    def _memory(self):
        self.conditions.no_memory = True
        end = lambda: setattr(self.conditions, "no_memory", False)  # noqa: E731
        self.later(self.some(MS, 20 * SECOND), end)

    def _events(self):
        kind = self.draw.choice(["lost", "late", "doubled"])
        self.conditions.events[self.draw.random() < 0.5] = (kind, self.draw.random())
        self.later(self.some(MS, 20 * SECOND), self.conditions.events.clear)

    def _error(self):
        """Fewer in a row than a front end tries; of a barrier, a write here, none."""
        names = (
            ("read",) if "feature-flush-cache" in self.conditions.withheld else ("read", "write")
        )
        number = self.draw.choice([errno.EIO, errno.ENOSPC])

        def fault():
            self.errors_left -= 1
            return OSError(number, "once") if self.errors_left >= 0 else None

        self._soon(names, fault)

    def drained(self):
        """The front end has nothing in flight, whose tries would be counted."""
        self.errors_left = 2

    def _lose(self):
        """The disk loses its cache, as an NBD server that ended; the next flush says so."""
        self.disk.lose()
        self._sectors.cache_lost()
        self._flush()

    def _flush(self):
        self._soon(("flush",), lambda: OSError(errno.EIO, "a flush that fails"))

    def _full(self):
        # Three times is more often than a front end tries.
        for _ in range(self.draw.choice([3, 10, 100])):
            self._soon(("write",), lambda: OSError(errno.ENOSPC, "no space left"))

    # The backend's process.

    def _restart(self, most=10 * SECOND):
        self.back.die()
        self.later(self.some(MS, most), self._return)

    def _absent(self):
        self._restart(200 * SECOND)

    def _kill(self):
        def fault():
            self.later(self.some(MS, 10 * SECOND), self._return)
            return Killed()

        self._soon(("read", "write", "flush", "discard"), fault)

    def _leave(self):
        """As on SIGTERM: every connection is ended in order, then the process."""
        for device in list(self.back.devices.values()):
            device.close()
        self.settle()
        self._restart()

    def _return(self):
        """Another process takes up the disks that are there, unless there is one."""
        if not self.back.is_dead:
            return
        self._begin()
        for domid, disk in self.disks.items():
            if self.xen.store.exists(f"{backend_path(domid, XVDB)}/frontend"):
                self.back.serve(domid, XVDB, disk)

    # The toolstack.

    def _detach(self):
        self.take_away()
        self.later(self.some(MS, 100 * SECOND), self._attach)

    def take_away(self):
        for path in (self.path, f"{self.domain.home}/device/vbd/{XVDB}"):
            self.back.store.remove(path)

    def _offline(self):
        self.back.store.update(
            self.path,
            {f"{self.path}/online": "0", f"{self.path}/state": str(abi.XenbusStateClosing)},
        )
        self.later(self.some(MS, 100 * SECOND), self._attach)

    def _attach(self):
        """The disk is there as if it had never been, by a backend that offers other things."""
        self._offer_less()
        self._return()
        self.take_away()
        self.settle()
        self.back.attach(self.domain, "xvdb", self.disk)

    def _back_state(self):
        for _ in range(self.draw.randint(1, 4)):
            self.later(self.some(MS // 1000, SECOND), self._state(self.path))

    def _front_state(self):
        for _ in range(self.draw.randint(1, 4)):
            self.later(self.some(MS // 1000, SECOND), self._state(self._front))

    @property
    def _front(self):
        return f"{self.domain.home}/device/vbd/{XVDB}"

    def _state(self, path):
        state = self.draw.choice(["", "x", *map(str, range(9))])
        return lambda: self.xen.store.exists(path) and self.xen.store.write(f"{path}/state", state)

    # The guest's own ring.

    def _index(self, offset):
        """Write any number to an index of the ring that is connected."""
        ref = self.xen.store.read(f"{self._front}/ring-ref", "") or self.xen.store.read(
            f"{self._front}/ring-ref0", ""
        )
        if ref:
            _, _, frame = self.machine.gnttab.entry(int(ref))
            struct.pack_into("<I", self.machine.page(frame), offset, self.draw.getrandbits(32))

    def _responses(self):
        self._index(abi.SRING_RSP_PROD)

    def _requests(self):
        self._index(abi.SRING_REQ_PROD)

    # The neighbour.

    def mischief(self):
        """The neighbour does what no front end would; none of it is the guest's concern."""
        front, draw = self.hostile, self.draw
        self._mischief -= 1
        if self._mischief < 0 or not self.xen.store.exists(front.node):
            return
        try:
            draw.choice([self._anything, self._garbage, self._lie, self._revoke, self._key])(front)
            if front.ring.push():
                front.machine.evtchn.send(NEIGHBOUR, front.port)
            front.responses()
        except (RingCorrupt, XenRefuses):
            # What it finds broken itself is its own doing.
            front.make_ring(draw.choice([1, 1, 2, 4]))

    def _anything(self, front):
        front.write("state", self.draw.choice([1, 3, 4, 5, 6, *range(9)]))

    def _garbage(self, front):
        if front.ring.free():
            at, stride = front.ring.slot(), front.layout.stride
            entry = bytearray(self.draw.randbytes(stride))
            entry[0] = self.draw.choice([0, 1, 2, 3, 5, 6, entry[0]])
            entry[1] = self.draw.randint(0, 13)
            front.ring.memory.view[at : at + stride] = entry

    def _lie(self, front):
        front.ring.memory.wr32(abi.SRING_REQ_PROD, self.draw.getrandbits(32))
        front.machine.evtchn.send(NEIGHBOUR, front.port)

    def _revoke(self, front):
        """Ask for a write, and take back a grant: the write's, one in use, or the ring's."""
        if front.ring.free():
            segments = front.data(bytes(PAGE), self.draw.random() < 0.5)
            front.put(WRITE, 8 * self.draw.randrange(64), segments)
            ref = self.draw.randint(abi.GNTTAB_NR_RESERVED_ENTRIES, segments[0][0])
            front.machine.gnttab.set_entry(ref, 0, 0, 0)

    def _key(self, front):
        names = ("ring-ref", "event-channel", "protocol", "feature-persistent", "ring-page-order")
        values = ("1", "0", "x", "99999", "x86_32-abi", str(front.port))
        front.write(self.draw.choice(names), self.draw.choice(values))
