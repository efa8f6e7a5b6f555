"""Requests of a block front end: packed into the ring, granted, and matched with their responses.

Made by Connection, anew for each connection; the memory is kept. Rules: a response counts only
after its id, operation and status were checked against what was asked, and each id is answered
once; a frame is granted for one request, and taken back before its part is reported; whatever
breaks the protocol raises RingCorrupt, and the ring is not used any more.
Units: sectors of 512 bytes, frames of 4096.
Source: xen/include/public/io/blkif.h.
"""

import struct

import hw

from .. import abi
from ..errors import RingCorrupt
from .blkif import OP_NAMES, PAGE_SECTORS, RESPONSE, SECTOR, STATUS_NAMES, X86_64
from .ring import FrontRing, slots

DIRECT = abi.BLKIF_MAX_SEGMENTS_PER_REQUEST
RESPONSE_SIZE = struct.calcsize(RESPONSE)
# Bytes for the grant references of a request of either kind.
DIRECT_REFS = 64
INDIRECT_REFS = 4 * 256
# Requests with a page of segments that can be in flight.
INDIRECT_DEPTH = 8


class Part:
    """The part of a transfer that one request does.

    Args:
        op: BLKIF_OP_*, never INDIRECT.
        sector, count: the sectors that it is about.
        gfn: the first frame of the data; the others follow it.
        frames: how many frames there are, behind which the data begins again at gfn; None for as
            many as `count` takes. At least DIRECT.
    """

    def __init__(self, op, sector, gfn, count, frames=None):
        self.op = op
        self.sector = sector
        self.gfn = gfn
        self.count = count
        self.tries = 0
        self.segments = 0
        if op != abi.BLKIF_OP_DISCARD:
            self.segments = (count + PAGE_SECTORS - 1) // PAGE_SECTORS
        self.frames = self.segments if frames is None else min(frames, self.segments)

    def cut(self, most):
        """Cut it into parts of at most `most` sectors. Returns a list."""
        if self.segments * PAGE_SECTORS <= most:
            return [self]
        frames = self.frames if self.frames < self.segments else None
        parts = []
        for done in range(0, self.count, most):
            gfn = self.gfn + (done // PAGE_SECTORS if frames is None else 0)
            size = min(most, self.count - done)
            parts.append(Part(self.op, self.sector + done, gfn, size, frames))
        return parts


def _pages(size):
    """Return how many pages hold so many bytes."""
    return (size + abi.PAGE_SIZE - 1) // abi.PAGE_SIZE


class Pages:
    """Pages of our own as a ring uses them: a view, single accesses, a barrier."""

    def __init__(self, addr, pages):
        self.addr = addr
        self.view = hw.mem(addr, pages * abi.PAGE_SIZE)

    def rd32(self, offset):
        """Return the u32 at an offset, by one load."""
        return hw.rd32(self.addr + offset)

    def wr32(self, offset, value):
        """Write a u32 at an offset, by one store."""
        hw.wr32(self.addr + offset, value)

    def mb(self):
        """Order all earlier accesses before all later ones."""
        hw.mb()


class Memory:
    """Pages for rings and grant references, allocated once for one connection after the other.

    Args:
        pages: of the ring.
    """

    def __init__(self, pages):
        self.pages = pages
        self._taken = []
        # Behind the ring: references of each slot's frames, then of the ring's pages.
        size = slots(pages, X86_64.stride) * DIRECT_REFS
        addr = self._take(pages + _pages(size + 4 * pages))
        # A page for what is read and written back.
        self.scratch = self._take(1)
        self.ring = Pages(addr, pages)
        self.refs = addr + pages * abi.PAGE_SIZE
        self.ring_refs = self.refs + size
        self.lists = 0

    def _take(self, pages):
        addr = hw.alloc_pages(pages)
        self._taken.append((addr, pages))
        return addr

    def need_lists(self):
        """Allocate pages of segments, `lists`, and room for references to them and to frames."""
        if not self.lists:
            size = INDIRECT_DEPTH * (4 + INDIRECT_REFS)
            self.lists = self._take(INDIRECT_DEPTH + _pages(size))
            self.list_refs = self.lists + INDIRECT_DEPTH * abi.PAGE_SIZE
            self.indirect_refs = self.list_refs + 4 * INDIRECT_DEPTH

    def give_back(self):
        """Free all pages; no connection uses them, and no backend has them mapped."""
        for addr, pages in self._taken:
            hw.free_pages(addr, pages)


class Buffers:
    """Buffers of our own, whose grants a backend may keep mapped.

    Args:
        count: how many requests they are for.
    """

    def __init__(self, count):
        self.count = count
        self.pages = count * DIRECT
        # Their references stand behind them.
        self._taken = self.pages + _pages(4 * self.pages)
        self.addr = hw.alloc_pages(self._taken)
        self.gfn = self.addr // abi.PAGE_SIZE
        self.refs = self.addr + self.pages * abi.PAGE_SIZE

    def give_back(self):
        """Free all pages; no connection uses them, and no backend has them mapped."""
        hw.free_pages(self.addr, self._taken)

    def _at(self, index):
        return self.addr + index * DIRECT * abi.PAGE_SIZE

    def fill(self, index, part):
        """Copy what a part writes into its buffer."""
        hw.copy(self._at(index), part.gfn * abi.PAGE_SIZE, part.count * SECTOR)

    def empty(self, index, part):
        """Copy what a part read out of its buffer."""
        hw.copy(part.gfn * abi.PAGE_SIZE, self._at(index), part.count * SECTOR)


class Requests:
    """The ring of one connection and the requests in flight there.

    Args:
        memory: Memory.
        grants: GrantTable.
        domid: the backend's domain.
        pages: how many of the memory's ring pages to use.
        name: the device's, for messages.

    Attributes: ring, FrontRing; in_flight, how many requests are; submitted, how many were.

    Raises: XenError when the grant table has no room for the ring.
    """

    def __init__(self, memory, grants, domid, pages, name):
        self.memory = memory
        self.grants = grants
        self.domid = domid
        self.pages = pages
        self.ring = FrontRing(memory.ring, pages, X86_64.stride, name)
        self.in_flight = 0
        # (id, part, lent grants) in flight: direct requests, then those with a page of segments.
        self.parts = [None] * (self.ring.slots + INDIRECT_DEPTH)
        self._free = list(range(self.ring.slots - 1, -1, -1))
        self._free_indirect = []
        self._buffers = None
        # Whether the backend has kept the memory's scratch page mapped.
        self._scratch_kept = False
        self.submitted = 0
        # Granted until end(): (lent grants, address of the references, how many).
        self._lent = []
        self._lend(memory.ring_refs, pages, memory.ring.addr // abi.PAGE_SIZE, False)

    def _lend(self, refs, n, gfn, readonly):
        frames = self.grants.lend(refs, n, self.domid, gfn, readonly)
        self._lent.append((frames, refs, n))

    def ring_refs(self):
        """Give the grant references of the ring's pages, a list."""
        return [hw.rd32(self.memory.ring_refs + 4 * i) for i in range(self.pages)]

    def use_indirect(self):
        """Submit large parts as requests with a page of segments, which the backend takes."""
        memory = self.memory
        memory.need_lists()
        self._lend(memory.list_refs, INDIRECT_DEPTH, memory.lists // abi.PAGE_SIZE, True)
        self._free_indirect = list(range(self.ring.slots, len(self.parts)))

    def use_buffers(self, buffers):
        """Move all data through buffers that stay granted: the backend keeps them mapped."""
        self._lend(buffers.refs, buffers.pages, buffers.gfn, False)
        self._buffers = buffers
        self._free = list(range(min(buffers.count, self.ring.slots)))

    def leave_buffers(self):
        """Do without buffers: the backend keeps none mapped. Nothing has been submitted yet."""
        frames, refs, n = self._lent.pop()
        frames.end(refs, n)
        self._buffers = None
        self._free = list(range(self.ring.slots - 1, -1, -1))

    def takes(self, part):
        """Tell whether a part can be submitted now."""
        free = self._free_indirect if part.segments > DIRECT else self._free
        if not free or self.ring.free() == 0:
            return False
        return self._buffers is not None or self.grants.fits(part.frames)

    def _refs(self, index):
        if self._buffers is not None:
            return self._buffers.refs + 4 * DIRECT * index
        if index < self.ring.slots:
            return self.memory.refs + DIRECT_REFS * index
        return self.memory.indirect_refs + INDIRECT_REFS * (index - self.ring.slots)

    def submit(self, part):
        """Put a part into the ring; ring.push() publishes it. The caller has seen takes()."""
        index = (self._free_indirect if part.segments > DIRECT else self._free).pop()
        self.submitted += 1
        id = self.submitted * len(self.parts) + index
        refs = self._refs(index)
        frames = None
        if self._buffers is not None:
            if part.segments and part.op != abi.BLKIF_OP_READ:
                self._buffers.fill(index, part)
        elif part.segments:
            readonly = part.op != abi.BLKIF_OP_READ
            frames = self.grants.lend(refs, part.frames, self.domid, part.gfn, readonly)
            if part.frames < part.segments:
                _repeat(refs, part.frames, part.segments)
        self.parts[index] = (id, part, frames)
        self.in_flight += 1
        at = self.ring.slot()
        entry = self._entry(part, id)
        memory = self.memory
        memory.ring.view[at : at + len(entry)] = entry
        last = (part.count - 1) % PAGE_SECTORS
        if part.segments > DIRECT:
            number = index - self.ring.slots
            hw.seg_fill(memory.lists + number * abi.PAGE_SIZE, refs, part.segments, 0, last)
            where = at + X86_64.indirect_grefs
            hw.copy(memory.ring.addr + where, memory.list_refs + 4 * number, 4)
        elif part.segments:
            hw.seg_fill(memory.ring.addr + at + X86_64.segments, refs, part.segments, 0, last)

    def _entry(self, part, id):
        if part.op == abi.BLKIF_OP_DISCARD:
            return X86_64.discard(id, part.sector, part.count)
        if part.segments > DIRECT:
            return X86_64.indirect(part.op, part.segments, id, part.sector)
        return X86_64.request(part.op, part.segments, id, part.sector)

    def take(self):
        """Take the next answer.

        Returns: (the part, its BLKIF_RSP_*), or None.

        Raises: RingCorrupt.
        """
        response = self.ring.take(RESPONSE_SIZE)
        if response is None:
            return None
        id, op, status = struct.unpack(RESPONSE, response)
        index = id % len(self.parts)
        kept = self.parts[index]
        if kept is None or kept[0] != id:
            raise RingCorrupt("response to id %d, which is not in flight" % id)
        part = kept[1]
        asked = abi.BLKIF_OP_INDIRECT if part.segments > DIRECT else part.op
        if op not in (part.op, asked):
            raise RingCorrupt(
                "response with operation %d to a %s (id %d)" % (op, OP_NAMES[part.op], id)
            )
        if status not in STATUS_NAMES:
            raise RingCorrupt("response with status %d (id %d)" % (status, id))
        if self._buffers is not None and part.op == abi.BLKIF_OP_READ and status == 0:
            self._buffers.empty(index, part)
        self._release(index)
        return part, status

    def _release(self, index):
        _, part, frames = self.parts[index]
        self.parts[index] = None
        self.in_flight -= 1
        (self._free if index < self.ring.slots else self._free_indirect).append(index)
        if frames is not None and frames.end(self._refs(index), part.frames):
            self._scratch_kept |= part.gfn * abi.PAGE_SIZE == self.memory.scratch

    def unanswered(self):
        """Give the parts in flight, in the order in which they were submitted."""
        ids = sorted(kept[0] for kept in self.parts if kept is not None)
        return [self.parts[id % len(self.parts)][1] for id in ids]

    def end(self):
        """Take all grants back; entries that the backend still has mapped are set aside.

        Returns: whether it has pages of the memory mapped, and whether of the buffers.
        """
        for index, kept in enumerate(self.parts):
            if kept is not None:
                self._release(index)
        mapped = [frames.end(refs, n) > 0 for frames, refs, n in self._lent]
        buffers = self._buffers is not None and mapped.pop()
        return any(mapped) or self._scratch_kept, buffers


def _repeat(refs, count, total):
    """Fill an array of `total` references with its first `count`, again and again."""
    while count < total:
        n = min(count, total - count)
        hw.copy(refs + 4 * count, refs, 4 * n)
        count += n
