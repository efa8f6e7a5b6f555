"""Requests of every kind in one ring, by a front end by hand, drawn from one seed.

Used by test_stream.py. What BlkFront never does: both layouts, parts of pages, flushes and barriers
behind writes that are in flight, requests that make no sense. The rules: no two requests in flight
touch one sector; answers come in the order of the requests; a flush that is answered covers all
that stood before it in the ring.
"""

import random

from blkback.cache import CachedDisk
from blkback.conditions import Conditions, Killed, Process
from blkback.front import (
    BARRIER,
    DISCARD,
    EOPNOTSUPP,
    ERROR,
    FLUSH,
    INITIALISED,
    OKAY,
    READ,
    WRITE,
    Front,
)
from blkback.sectors import SECTOR, Sectors

from pvdump.blkback.ports import Stalled
from pvxen.toolstack import Toolstack
from xenpv.block.blkif import X86_32, X86_64

SECTORS = 1024
XVDB = 51728
MS = 1_000_000
SIZE = 64 << 20


class Stream:
    def __init__(self, seed):
        self.draw = draw = random.Random(seed)
        self.xen = Toolstack(seed)
        self.conditions = Conditions(self.xen.clock, draw)
        self.disk = CachedDisk(draw, SECTORS)
        self.disk.strike = self._strike
        self.sectors = Sectors(SECTORS)
        self.back = Process(self.xen, self.conditions)
        domain = self.xen.create(size=SIZE, gnttab_frames=40)
        self.front = Front(self, domain, self.back.attach(domain, "xvdb", self.disk), self.disk)
        self.in_flight = {}  # by id, in their order: (operation, sectors, memory, expected status)
        self.settle()
        pages, scheme = draw.choice([1, 2, 4, 8, 16]), draw.choice(["order", "number"])
        self.front.make_ring(pages, draw.choice([X86_64, X86_32]), scheme)
        self._is_persistent = draw.random() < 0.3
        self._pages = pages
        self.front.write("feature-persistent", int(self._is_persistent))
        self.front.say(INITIALISED)

    def settle(self):
        self.xen.settle()

    def rest(self):
        self._pass(1000 * MS)

    def _pass(self, ns):
        self.xen.clock.advance(self.xen.clock.now + ns)
        self.settle()

    def _strike(self, name):
        if self.draw.random() < 0.05:
            return Stalled("now and then")
        return Killed() if self.draw.random() < 0.02 else None

    def run(self, steps):
        """Raises AssertionError."""
        actions = [self._write] * 6 + [self._read] * 2 + [self._flush, self._barrier, self._discard]
        actions += [self._nonsense, self._kick, self._kick, self._restart]
        for _ in range(steps):
            if self.front.ring.free() == 0:
                self._kick()
            if self.front.ring.free():
                self.draw.choice(actions)()
        for _ in range(1000):
            self._kick()
            if not self.in_flight:
                break
        assert not self.in_flight, f"never answered: {self.in_flight}"
        # The last process may have come only now.
        self.rest()
        assert self._is_persistent or self.front.mapped() == self._pages
        self.back.die()
        assert self.front.mapped() == 0
        self.disk.lose()
        self.sectors.power_lost(self.disk.data)

    # What is asked.

    def _place(self, most):
        """Sectors that nothing in flight touches, or none."""
        busy = {s for _, sectors, _, _ in self.in_flight.values() for s in sectors}
        begin = self.draw.randrange(SECTORS - most)
        count = 0
        while count < most and begin + count not in busy:
            count += 1
        return range(begin, begin + count)

    def _pieces(self, sectors):
        """How sectors are laid into pages: (first, last) of each, whole pages or parts."""
        left, pieces = len(sectors), []
        while left:
            first = self.draw.choice([0, 0, 0, self.draw.randrange(8)])
            last = min(first + left - 1, self.draw.choice([7, 7, 7, self.draw.randint(first, 7)]))
            pieces.append((first, last))
            left -= last - first + 1
        return pieces

    def _put(self, op, sectors, data=None, status=OKAY):
        """A request with pages, which hold data or are to be read into."""
        pieces = self._pieces(sectors)
        most = 256 if op in (READ, WRITE) else 11
        pieces = pieces[:most]
        sectors = sectors[: sum(last - first + 1 for first, last in pieces)]
        if data is not None:
            data = data(sectors.start, len(sectors))
        gfn, memory = self.front.pages(len(pieces)), []
        for i, (first, last) in enumerate(pieces):
            view = self.front.page(gfn + i)[first * SECTOR : (last + 1) * SECTOR]
            if data is not None:
                view[:], data = data[: len(view)], data[len(view) :]
            memory.append(view)
        readonly = op != READ and self.draw.random() < 0.7
        segments = [(self.front.grant(gfn + i, readonly), *piece) for i, piece in enumerate(pieces)]
        indirect = len(pieces) > 11 or (op in (READ, WRITE) and self.draw.random() < 0.2)
        number = self.front.put(op, sectors.start, segments, indirect=indirect)
        self.in_flight[number] = (op, sectors, memory, status)

    def _write(self):
        if sectors := self._place(self.draw.choice([8, 88, 300])):
            self._put(WRITE, sectors, self.sectors.write)

    def _read(self):
        if sectors := self._place(self.draw.choice([8, 88, 300])):
            self._put(READ, sectors)

    def _barrier(self):
        if sectors := self._place(11):
            self._put(BARRIER, sectors, self.sectors.write)

    def _flush(self):
        self.in_flight[self.front.put(FLUSH)] = (FLUSH, range(0), [], OKAY)

    def _discard(self):
        if sectors := self._place(50):
            self.sectors.discard(sectors.start, len(sectors))
            number = self.front.put(DISCARD, sectors.start, count=len(sectors))
            self.in_flight[number] = (DISCARD, sectors, [], OKAY)

    def _nonsense(self):
        """What may not be done, and has to be said so."""
        front = self.front
        ref = front.grant(front.pages())
        op, sector, segments, count, status = self.draw.choice(
            [
                (self.draw.choice([4, 7, 99, 255]), 0, [(ref, 0, 7)], None, EOPNOTSUPP),
                (WRITE, 0, [(ref, 0, 8)], None, ERROR),
                (WRITE, 0, [(ref, 5, 4)], None, ERROR),
                (WRITE, 0, [(ref, 0, 7)], 12, ERROR),
                (WRITE, 0, [], None, ERROR),
                (READ, SECTORS - 4, [(ref, 0, 7)], None, ERROR),
                (READ, 1 << 63, [(ref, 0, 7)], None, ERROR),
                (WRITE, 0, [(ref + 10000, 0, 7)], None, ERROR),
                (DISCARD, SECTORS, (), 1, ERROR),
            ]
        )
        number = front.put(op, sector, segments, count)
        self.in_flight[number] = (op, range(0), [], status)

    # What is answered.

    def _kick(self):
        front = self.front
        if front.ring.push():
            front.machine.evtchn.send(front.domain.domid, front.port)
        for _ in range(self.draw.choice([0, 1, 10, 1000])):
            if not self.xen.clock.run_one():
                break
        if self.draw.random() < 0.5:
            self._pass(20 * MS)
        if self.back.is_dead:
            self._return()
        for number, _, status in front.responses():
            self._answered(number, status)

    def _answered(self, number, status):
        assert number == next(iter(self.in_flight)), f"{number} is answered out of turn"
        op, sectors, memory, expected = self.in_flight.pop(number)
        assert status == expected, f"operation {op}: {status} instead of {expected}"
        if op == READ and status == OKAY:
            self.sectors.check(sectors.start, b"".join(memory))
        elif status == OKAY:
            self.sectors.acknowledged(sectors)
            if op in (FLUSH, BARRIER):
                self.sectors.flushed()

    def _restart(self):
        self.back.die()
        self._return()

    def _return(self):
        self.back = Process(self.xen, self.conditions)
        self.front.device = self.back.serve(self.front.domain.domid, XVDB, self.disk)
