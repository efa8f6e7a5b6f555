"""The byte ring of a shared page, such as xenstore's.

Used by the xenstore client and server. Rules: indexes are free-running u32; the peer's index is
fetched once, checked, and only the copy is used; data is complete before the index that publishes
it; room is given back only after the data was taken.
Source: xen/include/public/io/xs_wire.h.
"""

import hw

from .errors import RingCorrupt

U32 = 0xFFFFFFFF


class ByteRing:
    """One direction of a byte ring in a shared page.

    Args:
        addr: physical address of the bytes.
        size: how many they are, a power of two.
        prod, cons: physical addresses of the two indexes.
        name: the ring's name, for messages.

    Attributes: due, whether the peer may be asleep and must be told. A reader that has taken all
    there was may be asleep. A writer that found no room may be, too; it cannot have found none
    before a whole ring's worth was taken since it was last told.
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
        """Return (prod, cons, bytes in between), each fetched once. Raises RingCorrupt."""
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
        """Return how many bytes are in the ring. Raises RingCorrupt."""
        return self._indexes()[2]

    def told(self):
        """Note that the peer was told."""
        self.due = False
        self._told_at = hw.rd32(self.cons)

    def write(self, data):
        """Put in the bytes that there is room for. Returns how many. Raises RingCorrupt."""
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
        # Published before we look whether the reader had come to the end already.
        hw.mb()
        if hw.rd32(self.cons) == prod:
            self.due = True
        return count

    def read(self, limit):
        """Take up to `limit` of the bytes that are there. Returns them. Raises RingCorrupt."""
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
        # Given back before we look whether more has come: a writer that does not see it yet takes
        # us for awake.
        hw.mb()
        if (cons - self._told_at) & U32 >= self.size:
            self.due = True
        return data
