"""Shared rings: the byte ring of xenstore, and the front end of a request/response ring.

Used by the xenstore client and server and by block front ends. The rules: indexes are free-running
u32; the peer's index is fetched once, checked, and only the copy is used; data is complete before
the index that publishes it; room is given back only after the data was taken.
Source: xen/include/public/io/xs_wire.h, xen/include/public/io/ring.h.
"""

import hw

from . import abi
from .errors import RingCorrupt

U32 = 0xFFFFFFFF


class ByteRing:
    """One direction of a byte ring in a shared page.

    addr: physical address of the bytes; size: their number, a power of two; prod and cons: physical
    addresses of the two indexes; name: for messages. due: the peer may be asleep and is to be told.
    A reader that has taken all there was may be asleep; so may a writer that found no room, which
    it cannot have done before a whole ring's worth was taken since it was last told.
    Source: docs/misc/xenstore-ring.txt; oxenstored, which looks again only when told, and C
    xenstored, which looks at all rings before it sleeps.
    """

    def __init__(self, addr, size, prod, cons, name):
        self.addr = addr
        self.size = size
        self.prod = prod
        self.cons = cons
        self.name = name
        self.due = False
        self._told_at = 0

    def _indexes(self):
        prod = hw.rd32(self.prod)
        cons = hw.rd32(self.cons)
        used = (prod - cons) & U32
        if used > self.size:
            raise RingCorrupt(
                "%s ring: prod 0x%x - cons 0x%x is over its %d bytes"
                % (self.name, prod, cons, self.size)
            )
        return prod, cons, used

    def used(self):
        """Bytes in the ring. Raises RingCorrupt when the indexes are impossible."""
        return self._indexes()[2]

    def told(self):
        """The peer is being told now."""
        self.due = False
        self._told_at = hw.rd32(self.cons)

    def write(self, data):
        """Put in what there is room for. Returns the number of bytes taken."""
        prod, cons, used = self._indexes()
        # The room was read before the bytes that fill it are stored.
        hw.mb()
        count = min(len(data), self.size - used)
        if count == 0:
            return 0
        at = prod & (self.size - 1)
        first = min(count, self.size - at)
        hw.mem(self.addr + at, first)[:] = data[:first]
        if count > first:
            hw.mem(self.addr, count - first)[:] = data[first:count]
        # Data before the index that publishes it.
        hw.wmb()
        hw.wr32(self.prod, (prod + count) & U32)
        # Published before it is asked whether the reader had come to the end already.
        hw.mb()
        if hw.rd32(self.cons) == prod:
            self.due = True
        return count

    def read(self, limit):
        """Take up to limit bytes that are there."""
        prod, cons, used = self._indexes()
        count = min(used, limit)
        if count == 0:
            return b""
        # The index before the data it covers.
        hw.rmb()
        at = cons & (self.size - 1)
        first = min(count, self.size - at)
        data = bytes(hw.mem(self.addr + at, first))
        if count > first:
            data += bytes(hw.mem(self.addr, count - first))
        # The data is out before its room is given back.
        hw.mb()
        cons = (cons + count) & U32
        hw.wr32(self.cons, cons)
        if (cons - self._told_at) & U32 >= self.size:
            self.due = True
        return data


class FrontRing:
    """The front end's side of a request/response ring in one page.

    addr: physical address of the page; stride: bytes of an entry; slots: number of entries, a power
    of two. Requests are written in place by the caller at slot(); responses are read by take().
    """

    def __init__(self, addr, stride, name):
        self.addr = addr
        self.stride = stride
        self.name = name
        self.slots = 1
        while abi.SRING_RING + 2 * self.slots * stride <= abi.PAGE_SIZE:
            self.slots *= 2
        self._req_prod = 0
        self._rsp_cons = 0
        hw.fill(addr, abi.PAGE_SIZE, 0)
        hw.wr32(addr + abi.SRING_REQ_EVENT, 1)
        hw.wr32(addr + abi.SRING_RSP_EVENT, 1)

    def free(self):
        """Entries that can be used for requests now."""
        return self.slots - ((self._req_prod - self._rsp_cons) & U32)

    def slot(self):
        """Physical address of the next request's entry. The caller has seen free() > 0."""
        at = self.addr + abi.SRING_RING + (self._req_prod & (self.slots - 1)) * self.stride
        self._req_prod = (self._req_prod + 1) & U32
        return at

    def push(self):
        """Publish the requests written so far. Returns whether the backend must be told."""
        old = hw.rd32(self.addr + abi.SRING_REQ_PROD)
        hw.wmb()
        hw.wr32(self.addr + abi.SRING_REQ_PROD, self._req_prod)
        hw.mb()
        event = hw.rd32(self.addr + abi.SRING_REQ_EVENT)
        return (self._req_prod - event) & U32 < (self._req_prod - old) & U32

    def take(self):
        """Physical address of the next response, or None.

        The entry may be used again only after the next call of take(). Raises RingCorrupt when the
        backend announces more responses than there are requests.
        """
        prod = hw.rd32(self.addr + abi.SRING_RSP_PROD)
        ready = (prod - self._rsp_cons) & U32
        if ready == 0:
            return None
        outstanding = (self._req_prod - self._rsp_cons) & U32
        if ready > outstanding:
            raise RingCorrupt(
                "%s ring: rsp_prod 0x%x announces %d responses to %d requests"
                % (self.name, prod, ready, outstanding)
            )
        hw.rmb()
        at = self.addr + abi.SRING_RING + (self._rsp_cons & (self.slots - 1)) * self.stride
        self._rsp_cons = (self._rsp_cons + 1) & U32
        return at

    def rearm(self):
        """Ask to be told of the next response. Returns True when one has come already."""
        hw.wr32(self.addr + abi.SRING_RSP_EVENT, (self._rsp_cons + 1) & U32)
        hw.mb()
        return hw.rd32(self.addr + abi.SRING_RSP_PROD) != self._rsp_cons
