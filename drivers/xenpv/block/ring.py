"""Request/response rings of block devices, both ends, of 1 to 16 pages: indexes and entries.

Used by the front end and by backends. The ring's memory is given as an object with a `view`
(memoryview) and single accesses rd32, wr32 at byte offsets, and a barrier mb(). Rules: indexes are
free-running u32; the other end's index is read once, checked before any entry is touched, and only
the copy is used; entries are read as private copies; the other end gets an event only if its event
index asks for one at what is published now.
Source: xen/include/public/io/ring.h.
"""

import struct

from .. import abi
from ..errors import RingCorrupt
from .blkif import RESPONSE

U32 = 0xFFFFFFFF
PAGES_MAX = 16
# A backend stores a mark over the sector of a request that it has done: the entry's index, the
# response's status and operation, and the step that it has come to. With that last byte the mark is
# a sector that no disk has. One store writes it, so that a backend that is killed leaves the sector
# or the mark.
MARK = "<IhBB"
MARK_SIZE = struct.calcsize(MARK)
ANSWERED = 0xA1  # the request's id is still in its place
COPIED = 0xA2  # the response is behind the mark


def slots(pages, stride):
    """Give how many entries a ring has: the power of two that fits.

    Args:
        pages: of the ring.
        stride: bytes of an entry.
    """
    count = 1
    while abi.SRING_RING + 2 * count * stride <= pages * abi.PAGE_SIZE:
        count *= 2
    return count


class _Ring:
    """The part of a ring that both ends have in common."""

    def __init__(self, memory, pages, stride, name):
        self.memory = memory
        self.stride = stride
        self.name = name
        self.slots = slots(pages, stride)
        self._mask = self.slots - 1
        # Our index as last published; how many entries of the other end's were seen, not taken.
        self._told = 0
        self.unread = 0

    def _at(self, index):
        return abi.SRING_RING + (index & self._mask) * self.stride

    def _copy(self, index, size):
        at = abi.SRING_RING + (index & self._mask) * self.stride
        return bytes(self.memory.view[at : at + size])

    def _publish(self, prod_at, event_at, prod):
        """Move our index. Returns whether the other end asked for an event at one passed now."""
        memory = self.memory
        old, self._told = self._told, prod
        # Entries before the index that publishes them, the index before the look at the event.
        memory.mb()
        memory.wr32(prod_at, prod)
        memory.mb()
        event = memory.rd32(event_at)
        return (prod - event) & U32 < (prod - old) & U32


class FrontRing(_Ring):
    """The front end's side of a ring: it makes the ring, and asks.

    Args:
        memory: the ring's pages, see above.
        pages: how many of them to use.
        stride: bytes of an entry.
        name: for messages.
    """

    def __init__(self, memory, pages, stride, name):
        super().__init__(memory, pages, stride, name)
        self._req_prod = 0
        self._rsp_cons = 0
        for offset, value in (
            (abi.SRING_REQ_PROD, 0),
            (abi.SRING_REQ_EVENT, 1),
            (abi.SRING_RSP_PROD, 0),
            (abi.SRING_RSP_EVENT, 1),
        ):
            memory.wr32(offset, value)

    def free(self):
        """Give how many entries can be used for requests now."""
        return self.slots - ((self._req_prod - self._rsp_cons) & U32)

    def slot(self):
        """Take an entry for a request; the caller has seen free() > 0. Returns its byte offset."""
        at = self._at(self._req_prod)
        self._req_prod = (self._req_prod + 1) & U32
        return at

    def push(self):
        """Publish the requests written so far. Returns whether the backend needs an event."""
        return self._publish(abi.SRING_REQ_PROD, abi.SRING_REQ_EVENT, self._req_prod)

    def take(self, size):
        """Take the next response.

        Args:
            size: how many bytes of it.

        Returns: bytes, or None when there is none.

        Raises: RingCorrupt when the backend announces more responses than there are requests.
        """
        if not self.unread and not self._look():
            return None
        self.unread -= 1
        response = self._copy(self._rsp_cons, size)
        self._rsp_cons = (self._rsp_cons + 1) & U32
        return response

    def _look(self):
        """Return the number of responses that were not taken. Raises RingCorrupt."""
        prod = self.memory.rd32(abi.SRING_RSP_PROD)
        ready = (prod - self._rsp_cons) & U32
        outstanding = (self._req_prod - self._rsp_cons) & U32
        if ready > outstanding:
            raise RingCorrupt(
                "%s ring: rsp_prod 0x%x announces %d responses to %d requests"
                % (self.name, prod, ready, outstanding)
            )
        if ready:
            # The index before the responses that it publishes.
            self.memory.mb()
        self.unread = ready
        return ready

    def rearm(self):
        """Ask for an event at the next response. Returns True when one has come already."""
        self.memory.wr32(abi.SRING_RSP_EVENT, (self._rsp_cons + 1) & U32)
        self.memory.mb()
        return self.memory.rd32(abi.SRING_RSP_PROD) != self._rsp_cons


class BackRing(_Ring):
    """The backend's side of a ring that the front end has made: it answers.

    An earlier backend may have served the ring and may have been killed between any two stores.
    push() marks each entry before it puts the response over the request, so that the next backend
    knows which requests have been done, and publishes their responses when it is made.

    Args:
        memory, pages, name: as for FrontRing.
        layout: of the requests, a blkif.Layout.
    """

    def __init__(self, memory, pages, layout, name):
        super().__init__(memory, pages, layout.stride, name)
        self._layout = layout
        index = memory.rd32(abi.SRING_RSP_PROD)
        count = (memory.rd32(abi.SRING_REQ_PROD) - index) & U32
        while 0 < count <= self.slots and self._complete(index):
            index, count = (index + 1) & U32, count - 1
        self._responses = []
        self._told = self._req_cons = self._rsp_prod = index
        # Whether the front end wants an event is not known: the caller sends one.
        self._publish(abi.SRING_RSP_PROD, abi.SRING_RSP_EVENT, index)

    def _complete(self, index):
        """Put the response to a request that an earlier backend has done. Returns if it has."""
        entry, at = self._copy(index, self.stride), self._layout.sector
        marked, status, op, kind = struct.unpack_from(MARK, entry, at)
        if marked != index or kind not in (ANSWERED, COPIED):
            return False
        copy = at + MARK_SIZE
        response = entry[copy : copy + struct.calcsize(RESPONSE)]
        if kind == ANSWERED:
            response = struct.pack(RESPONSE, self._layout.parse(entry).id, op, status)
        self._put(index, response, kind)
        return True

    def _put(self, index, response, kind=0):
        """Put a response into its entry, step by step, from the step after that of `kind` on."""
        view, at, size = self.memory.view, self._at(index), len(response)
        mark = at + self._layout.sector
        copy = mark + MARK_SIZE
        if kind != COPIED:
            _, op, status = struct.unpack(RESPONSE, response)
            if kind != ANSWERED:
                view[mark:copy] = struct.pack(MARK, index, status, op, ANSWERED)
            view[copy : copy + size] = response
            view[copy - 1] = COPIED
        view[at : at + size] = response

    def take(self):
        """Take the next request.

        Returns: its entry, bytes, or None when there is none.

        Raises: RingCorrupt when the front end announces more requests than the ring has entries
            whose responses it was given.
        """
        if not self.unread and not self._look():
            return None
        self.unread -= 1
        entry = self._copy(self._req_cons, self.stride)
        self._req_cons = (self._req_cons + 1) & U32
        return entry

    def _look(self):
        """Return the number of requests that were not taken. Raises RingCorrupt."""
        prod = self.memory.rd32(abi.SRING_REQ_PROD)
        ready = (prod - self._req_cons) & U32
        if ready > self.slots - ((self._req_cons - self._rsp_prod) & U32):
            raise RingCorrupt(
                "%s ring: req_prod 0x%x is over rsp_prod 0x%x by more than its %d entries, or "
                "behind 0x%x" % (self.name, prod, self._rsp_prod, self.slots, self._req_cons)
            )
        if ready:
            # The index before the requests that it publishes.
            self.memory.mb()
        self.unread = ready
        return ready

    def rearm(self):
        """Ask for an event at the next request. Returns True when one has come already."""
        self.memory.wr32(abi.SRING_REQ_EVENT, (self._req_cons + 1) & U32)
        self.memory.mb()
        return self.memory.rd32(abi.SRING_REQ_PROD) != self._req_cons

    def respond(self, response):
        """Answer the next request; push() puts the response into the ring."""
        self._responses.append(response)
        self._rsp_prod = (self._rsp_prod + 1) & U32

    def push(self):
        """Publish the responses so far. Returns whether the front end needs an event."""
        index = self._told
        for response in self._responses:
            self._put(index, response)
            index = (index + 1) & U32
        self._responses.clear()
        return self._publish(abi.SRING_RSP_PROD, abi.SRING_RSP_EVENT, self._rsp_prod)
