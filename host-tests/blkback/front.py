"""A front end by hand, a disk in memory and the backend between them, on the embedded Xen.

Used by these tests for what a front end that behaves would never do.
"""

import struct

from fixtures.ringpages import RingPages

from pvdump.blkback.device import REST
from pvdump.blkback.ports import Stalled
from pvxen.blkback import BlkBack
from pvxen.toolstack import Toolstack
from xenpv import abi
from xenpv.block.blkif import RESPONSE, SEGMENT, X86_64
from xenpv.block.ring import FrontRing

READ, WRITE, BARRIER = abi.BLKIF_OP_READ, abi.BLKIF_OP_WRITE, abi.BLKIF_OP_WRITE_BARRIER
FLUSH, DISCARD, INDIRECT = (
    abi.BLKIF_OP_FLUSH_DISKCACHE,
    abi.BLKIF_OP_DISCARD,
    abi.BLKIF_OP_INDIRECT,
)
OKAY, ERROR, EOPNOTSUPP = 0, -1, -2
INITIALISING, INIT_WAIT, INITIALISED, CONNECTED, CLOSING, CLOSED = 1, 2, 3, 4, 5, 6
PAGE, SECTOR = 4096, 512
SIZE = 1 << 20


class Disk:
    """data: what reads find; stable: what a loss of power leaves; ios: (name, offset, lengths).

    stalled: nothing can be done for now; errors: raised by the next calls, one each; refuses: by
    every write that touches these bytes.
    """

    direct = 0
    sector_size = 512
    physical = 512
    granularity = 4096

    def __init__(self, size=SIZE):
        self.data = bytearray(size)
        self.stable = bytes(size)
        self.size = size
        self.ios = []
        self.errors = []
        self.refuses = range(0)
        self.stalled = False
        self.closed = 0

    def _begin(self, name, offset=0, lengths=()):
        if self.stalled:
            raise Stalled("the disk is busy")
        self.ios.append((name, offset, list(lengths)))
        if self.errors:
            raise self.errors.pop(0)

    def read(self, offset, buffers):
        self._begin("read", offset, map(len, buffers))
        for buffer in buffers:
            buffer[:] = self.data[offset : offset + len(buffer)]
            offset += len(buffer)

    def write(self, offset, buffers):
        self._begin("write", offset, map(len, buffers))
        end = offset + sum(map(len, buffers))
        if offset < self.refuses.stop and self.refuses.start < end:
            raise OSError(28, "no space left")
        for buffer in buffers:
            self.data[offset : offset + len(buffer)] = buffer
            offset += len(buffer)

    def flush(self):
        self._begin("flush")
        self.stable = bytes(self.data)

    def discard(self, offset, length):
        self._begin("discard", offset, [length])
        self.data[offset : offset + length] = bytes(length)

    def measure(self):
        self.size = len(self.data)

    def close(self):
        self.closed += 1


class Pages(RingPages):
    """Frames of a guest, one behind the other, as a ring sees them."""

    def __init__(self, machine, gfn, pages):
        super().__init__(memoryview(machine.ram)[gfn * PAGE : (gfn + pages) * PAGE])


class Xen:
    """domains: how many; each has the disk xvdb."""

    def __init__(self, domains=1, seed=0, mode="w", disk=Disk):
        self.xen = Toolstack(seed)
        self.back = BlkBack(self.xen)
        self.fronts = []
        for _ in range(domains):
            domain = self.xen.create(size=4 << 20)
            sink = disk()
            device = self.back.attach(domain, "xvdb", sink, mode)
            self.fronts.append(Front(self, domain, device, sink))
        self.settle()

    def settle(self):
        self.xen.settle()

    def rest(self):
        """Let pass what a device rests between two connections."""
        self.xen.clock.advance(self.xen.clock.now + REST)
        self.settle()


class Front:
    """A front end's side of one device. layout: of its requests; pages: of its ring."""

    def __init__(self, xen, domain, device, disk):
        self.xen, self.domain, self.device, self.disk = xen, domain, device, disk
        self.machine = domain.machine
        self.node = device.front
        self.layout = X86_64
        self.ring = None
        self.port = 0
        self._id = 0
        self.begin_again()

    # Memory.

    def begin_again(self):
        """Forget what it granted, none of which is mapped; its pages are used anew."""
        self._gfn = 16
        self._ref = abi.GNTTAB_NR_RESERVED_ENTRIES

    def pages(self, count=1):
        """Pages of its own. Returns the first gfn."""
        self._gfn += count
        return self._gfn - count

    def grant(self, gfn, readonly=False, domid=0):
        flags = abi.GTF_permit_access | (abi.GTF_readonly if readonly else 0)
        self.machine.gnttab.set_entry(self._ref, flags, domid, gfn)
        self._ref += 1
        return self._ref - 1

    def page(self, gfn):
        return self.machine.page(gfn)

    # Nodes.

    def write(self, key, value):
        self.xen.xen.store.write(f"{self.node}/{key}", value)

    def say(self, state):
        """Go to a state; returns the backend's when it has rested and done all it can."""
        self.write("state", state)
        self.xen.settle()
        self.xen.rest()
        return self.back_state()

    def back_state(self):
        return int(self.back("state", "0"))

    def back(self, key, default=None):
        return self.xen.xen.store.read(f"{self.device.path}/{key}", default)

    def error(self):
        path = self.device.path.replace("/local/domain/0/", "/local/domain/0/error/")
        return self.xen.xen.store.read(f"{path}/error", "")

    # The connection.

    def make_ring(self, pages=1, layout=X86_64, scheme="order"):
        """A new ring and channel; their nodes are written, no state."""
        self.layout = layout
        gfn = self.pages(pages)
        self.ring = FrontRing(Pages(self.machine, gfn, pages), pages, layout.stride, "front")
        refs = [self.grant(gfn + i) for i in range(pages)]
        self.port = self.machine.evtchn.alloc_unbound(self.domain.domid, 0)
        if pages == 1:
            self.write("ring-ref", refs[0])
        else:
            order = pages.bit_length() - 1
            key, value = (
                ("ring-page-order", order) if scheme == "order" else ("num-ring-pages", pages)
            )
            self.write(key, value)
            for i, ref in enumerate(refs):
                self.write(f"ring-ref{i}", ref)
        self.write("event-channel", self.port)
        if layout is not X86_64:
            self.write("protocol", layout.protocol)
        return refs

    def connect(self, pages=1, layout=X86_64, persistent=False, **options):
        self.make_ring(pages, layout, **options)
        if persistent:
            self.write("feature-persistent", 1)
        assert self.say(INITIALISED) == CONNECTED, self.error()
        self.say(CONNECTED)
        return self

    # Requests.

    def put(self, op, sector=0, segments=(), count=None, indirect=False):
        """Write a request; segments: (gref, first, last). Returns its id."""
        self._id += 1
        if indirect:
            gfn = self.pages()
            self._segments(self.page(gfn), 0, segments)
            count = len(segments) if count is None else count
            entry = self.layout.indirect(op, count, self._id, sector)
            entry += struct.pack("<I", self.grant(gfn, True))
        elif op == DISCARD:
            entry = self.layout.discard(self._id, sector, count)
        else:
            count = len(segments) if count is None else count
            entry = self.layout.request(op, count, self._id, sector)
        at = self.ring.slot()
        self.ring.memory.view[at : at + len(entry)] = entry
        if not indirect:
            self._segments(self.ring.memory.view, at + self.layout.segments, segments)
        return self._id

    def _segments(self, view, at, segments):
        for i, segment in enumerate(segments[:512]):
            struct.pack_into(SEGMENT, view, at + 8 * i, *segment)

    def kick(self):
        """Publish, and let the other side do what it can. Returns [(id, op, status)]."""
        if self.ring.push():
            self.machine.evtchn.send(self.domain.domid, self.port)
        self.xen.settle()
        return self.responses()

    def responses(self):
        found = []
        while (response := self.ring.take(struct.calcsize(RESPONSE))) is not None:
            found.append(struct.unpack(RESPONSE, response))
        self.ring.rearm()
        return found

    def status(self, *args, **kwargs):
        """The status of one request."""
        self.put(*args, **kwargs)
        ((_, _, status),) = self.kick()
        return status

    def data(self, content, readonly=True):
        """Granted pages that hold `content`. Returns their segments."""
        count = -(-len(content) // PAGE)
        gfn = self.pages(count)
        self.machine.ram[gfn * PAGE : gfn * PAGE + len(content)] = content
        refs = [self.grant(gfn + i, readonly) for i in range(count)]
        lasts = [7] * (count - 1) + [(len(content) - 1) // SECTOR % 8]
        return [(ref, 0, last) for ref, last in zip(refs, lasts, strict=True)]

    def room(self, count):
        """Granted pages to read into. Returns their segments and their memory."""
        gfn = self.pages(count)
        segments = [(self.grant(gfn + i), 0, 7) for i in range(count)]
        return segments, memoryview(self.machine.ram)[gfn * PAGE : (gfn + count) * PAGE]

    def mapped(self):
        """How many of its frames the backend has mapped, but for the store's and console's."""
        return len(self.machine.gnttab.mappings)
