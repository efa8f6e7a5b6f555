"""A block backend that does anything at any time, by seed: what a front end must bear.

Used by test_blkfront_hostile.py. It is a disk of the embedded Xen with all its faults, on whose
ring, states, keys and events somebody lays hands every few milliseconds. The one thing that it
never does is to say that it did what it did not do: no front end could tell.
"""

import struct

from pvdump.blkback.ports import Stalled
from pvdump.xen.faults import Faults
from pvdump.xen.machine import DOM0
from pvdump.xen.sink import Memory
from xenpv import abi
from xenpv.blkif import RESPONSE

MS = 1_000_000
KEYS = (
    *("sectors", "sector-size", "info", "mode", "max-ring-page-order", "max-ring-pages"),
    *("max-requests", "max-request-size", "max-request-segments", "feature-max-indirect-segments"),
    *("feature-persistent", "feature-flush-cache", "feature-barrier", "feature-discard"),
)
VALUES = ("", "x", "0", "1", "3", "4096", "65536", str(1 << 31), str((1 << 64) - 1), "-1", "r")
LIES = (
    *("_response", "_entry", "_index", "_wake_up", "_state", "_key"),
    *("_fault", "_silence", "_die", "_events", "_tell", "_truth"),
)
NUMBERED = ("bad_id", "id_twice", "bad_status", "fails", "wrong_operation", "overflow")


class Slow(Memory):
    """A disk that is busy now and then, so that what is asked is not done at once."""

    def __init__(self, size, draw):
        super().__init__(size)
        self.draw = draw
        self.busy = 0.3

    def _begin(self):
        if self.draw.random() < self.busy:
            raise Stalled("the disk is busy")

    def read(self, offset, buffers):
        self._begin()
        super().read(offset, buffers)

    def write(self, offset, buffers):
        self._begin()
        super().write(offset, buffers)


class LyingBack:
    """domain: who gets the disk xvdb, of `size` bytes. lies: what it did, by name."""

    def __init__(self, domain, size, draw):
        self.domain = domain
        self.sink = Slow(size, draw)
        self.draw = draw
        self.clock = domain.xen.clock
        self.lies = []
        self._lying = True
        self._losing = 0.0
        self._connection = None, 0  # its ring, and how many requests there were before
        self._deliver = domain.xen.evtchn.deliver
        domain.xen.evtchn.deliver = self._event
        self._attach(plain=draw.random() < 0.5, reorder=draw.random() < 0.5, latency=self._some())
        self._later()

    def _attach(self, **faults):
        self.device = self.domain.disk("xvdb", self.sink, **faults)

    def _some(self):
        return self.draw.choice([MS // 10, MS, 20 * MS])

    def _later(self):
        self.clock.after(int(10 ** self.draw.uniform(4, 9)), self._turn)

    def _turn(self):
        if self._lying:
            lie = getattr(self, self.draw.choice(LIES))
            self.lies.append(lie.__name__)
            lie()
            self._later()

    def come_to_reason(self):
        """From now on all is well: the toolstack has given the disk anew."""
        self._lying = False
        self._losing = self.sink.busy = 0.0
        self.domain.xen.blkback.close(self.device)
        for path in (self.device.path, self.device.front):
            self.domain.store.rm(path)
        self._attach()

    # Lies.

    def _ring(self):
        """The ring, None without a connection."""
        instance = self.device.instance
        return None if instance is None or instance.gone else self.device._faulty_ring

    def _put(self, ring, index, response):
        """Overwrite an entry, but for one whose request the backend would take for another."""
        taken = (index - ring._req_cons) & 0xFFFFFFFF >= 1 << 31
        prod = ring.memory.rd32(abi.SRING_REQ_PROD)
        if taken or (index - prod) & 0xFFFFFFFF < ring.slots:
            at = ring._at(index)
            ring.memory.view[at : at + len(response)] = response

    def _response(self):
        """A well-formed one: to what is asked, that it failed; to what was answered, once more."""
        ring = self._ring()
        if ring is None:
            return
        done = self._done(ring)
        if done and self.draw.random() < 0.5:
            request = self.draw.choice(done[-8:])
            answer, op, status = request.id, request.op, abi.BLKIF_RSP_OKAY
        else:
            ids = [request.id for request in self.device.seen[-40:]]
            answer = self.draw.choice([*ids, 0, self.draw.getrandbits(64)])
            op, status = self.draw.randrange(8), self.draw.choice([-1, -2, -3, 1, 32767])
        response = struct.pack(RESPONSE, answer, op, status)
        prod = ring.memory.rd32(abi.SRING_RSP_PROD)
        self._put(ring, prod, response)
        self._announce(ring, prod + 1)

    def _done(self, ring):
        """Requests of this connection that were answered."""
        if ring is not self._connection[0]:
            self._connection = ring, len(self.device.seen)
        undone = [request for _, request in ring._given]
        undone += [request for request, _ in self.device.held]
        return [r for r in self.device.seen[self._connection[1] :] if r not in undone]

    def _entry(self):
        """Bytes of any entry that say nothing, published or not: no status is that of success."""
        ring = self._ring()
        if ring is not None:
            size = struct.calcsize(RESPONSE)
            status = struct.pack("<h", self.draw.randrange(1, 32768))
            index = ring.memory.rd32(abi.SRING_RSP_PROD) + self.draw.randrange(ring.slots)
            self._put(ring, index, self.draw.randbytes(size - 2) + status)

    def _index(self):
        ring = self._ring()
        if ring is not None:
            near = ring.memory.rd32(abi.SRING_RSP_PROD) + self.draw.randint(-40, 40)
            self._announce(ring, self.draw.choice([near, self.draw.getrandbits(32)]))

    def _announce(self, ring, prod):
        """Publish up to an index. Where nothing was written, a request may look like success."""
        begin = ring.memory.rd32(abi.SRING_RSP_PROD)
        for index in range(begin, begin + ring.slots):
            at = ring._at(index) + 10
            if ring.memory.view[at : at + 2] == bytes(2):
                ring.memory.view[at : at + 2] = b"\1\1"
        ring.memory.wr32(abi.SRING_RSP_PROD, prod & 0xFFFFFFFF)
        self._tell()

    def _wake_up(self):
        """The index at which the backend says that it wants to be told."""
        ring = self._ring()
        if ring is not None:
            ring.memory.wr32(abi.SRING_REQ_EVENT, self.draw.getrandbits(32))

    def _node(self, key, value):
        if self.domain.store.exists(self.device.path):
            self.domain.store.write(f"{self.device.path}/{key}", value)

    def _state(self):
        self._node("state", self.draw.choice(["", "x", *map(str, range(10))]))

    def _key(self):
        self._node(self.draw.choice(KEYS), self.draw.choice(VALUES))

    def _fault(self):
        number = len(self.device.seen) + self.draw.randrange(4)
        setattr(self.device.faults, self.draw.choice(NUMBERED), number)

    def _silence(self):
        """From now on no answer, and what is lent is kept."""
        self.device.faults.never_answers = len(self.device.seen) + self.draw.randrange(4)

    def _die(self):
        self.device.faults.dies = len(self.device.seen) + self.draw.randrange(4)

    def _truth(self):
        """A while without faults."""
        self.device.faults = Faults(plain=self.device.faults.plain)
        self._losing = 0.0

    # Events.

    def _events(self):
        self._losing = self.draw.random()

    def _event(self, port):
        if self.draw.random() >= self._losing:
            self._deliver(port)

    def _tell(self):
        """An event, for whatever reason."""
        for port in self.domain.xen.evtchn.of(DOM0):
            if port.remote_domid == self.domain.domid and port.remote_port:
                self.domain.xen.evtchn.send(DOM0, port.number)
