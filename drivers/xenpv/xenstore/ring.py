"""The shared ring as a transport of xenstore: taking it over, moving bytes, handing it back.

Used by client.Xenstore in a guest. On entry the ring may hold bytes of a crashed kernel: where the
server offers it, the connection is made anew through the `connection` field; a ring that was never
used is used; else the ring goes on from the indexes found, after boundary.py has brought both
directions to the boundary of a message. The server is told only when it may be asleep (see
bytering.ByteRing).
Source: xen/include/public/io/xs_wire.h, docs/misc/xenstore-ring.txt.
"""

import hw

from .. import abi
from ..bytering import ByteRing
from ..errors import NoXenstore, RingCorrupt
from ..loop import SECOND
from .boundary import Boundary

TIMEOUT = 5 * SECOND
# How often a ring is emptied when it is left.
ROUNDS = 24
ERRORS = ("none", "communication", "ring index", "protocol")


class RingTransport:
    """This guest's connection to the xenstore server, over the page that both share.

    Args:
        xen: Hypercalls.
        loop: PollLoop.

    Attributes: found, how the ring was taken over, for messages; stale, whether watches and
    transactions of a crashed kernel may still be in force; sent and updates, how often the server
    was told, and how often an index of the ring was moved.
    """

    def __init__(self, xen, loop):
        self.xen = xen
        self.loop = loop
        self.page = 0
        self.port = 0
        self.signal = None
        self.found = ""
        self.stale = False
        self.sent = 0
        self.updates = 0

    async def open(self):
        """Find the ring and take it over.

        Raises: NoXenstore when there is none, or when its server does not let it be taken over;
        RingCorrupt when the server has given the ring up.
        """
        pfn = self.xen.hvm_param(abi.HVM_PARAM_STORE_PFN)
        port = self.xen.hvm_param(abi.HVM_PARAM_STORE_EVTCHN)
        if pfn == 0 or pfn >= 1 << 40:
            why = "the toolstack gave this domain none" if pfn == 0 else "it is not ready"
            raise NoXenstore("no xenstore: HVM_PARAM_STORE_PFN is 0x%x; %s" % (pfn, why))
        self.loop.evtchn.check(port, "xenstore")
        self.page = pfn * abi.PAGE_SIZE
        self.port = port
        self.signal = self.loop.port(port)
        self._requests = self._ring("request", abi.XENSTORE_RING_REQ, abi.XENSTORE_RING_REQ_PROD)
        self._replies = self._ring("reply", abi.XENSTORE_RING_RSP, abi.XENSTORE_RING_RSP_PROD)
        self.stale = False
        if self._offers(abi.XENSTORE_SERVER_FEATURE_RECONNECTION):
            await self._reconnect("taking the ring over")
            self.found = "connection made anew"
        elif not any(self._indexes()):
            self.found = "ring not used before"
        else:
            self.stale = True
            self.found = "indexes taken as found"
            done = await Boundary(self).find()
            if done:
                self.found += ", " + done
        self.tell()

    async def close(self):
        """Leave the ring to the next kernel: reconnected, or, without that, drained."""
        try:
            if self._offers(abi.XENSTORE_SERVER_FEATURE_RECONNECTION):
                await self._reconnect("handing the ring back")
            else:
                for _ in range(ROUNDS):
                    if not self.read(abi.XENSTORE_RING_SIZE):
                        break
                    self.flush()
        finally:
            self.loop.forget(self.port)

    def resets(self):
        """Return whether close() makes the server forget watches and transactions."""
        return self._offers(abi.XENSTORE_SERVER_FEATURE_RECONNECTION)

    # Bytes.

    def written(self):
        """Return the last bytes of the request stream, as many as the ring has kept."""
        prod = self._indexes()[1]
        at = prod % abi.XENSTORE_RING_SIZE
        ring = bytes(hw.mem(self.page + abi.XENSTORE_RING_REQ, abi.XENSTORE_RING_SIZE))
        # Where the index has not gone once around, nothing was written before byte 0.
        return ring[:at] if prod == at else ring[at:] + ring[:at]

    def untaken(self):
        """Return how many bytes of requests the server has not taken yet."""
        return self._requests.used()

    def write(self, data):
        """Put in what there is room for. Returns the number of bytes taken."""
        count = self._requests.write(data)
        self.updates += count > 0
        return count

    def read(self, limit):
        """Take up to limit bytes that have come."""
        data = self._replies.read(limit)
        self.updates += len(data) > 0
        return data

    def flush(self):
        """Tell the server, if it may be asleep."""
        if self._requests.due or self._replies.due:
            self.tell()

    def tell(self):
        """Tell the server. Raises RingCorrupt when it has given the connection up."""
        if self._offers(abi.XENSTORE_SERVER_FEATURE_ERROR):
            error = hw.rd32(self.page + abi.XENSTORE_RING_ERROR)
            if error != abi.XENSTORE_ERROR_NONE:
                raise RingCorrupt("xenstore: the server has given the connection up")
        # It stays due until it was done: memory may run out.
        self.loop.evtchn.send(self.port)
        self._requests.told()
        self._replies.told()
        self.sent += 1

    def state(self):
        """Return the ring's indexes and the server's error field, for messages."""
        req_cons, req_prod, rsp_cons, rsp_prod = self._indexes()
        text = "indexes req %x/%x rsp %x/%x (prod/cons)" % (req_prod, req_cons, rsp_prod, rsp_cons)
        if self._offers(abi.XENSTORE_SERVER_FEATURE_ERROR):
            error = hw.rd32(self.page + abi.XENSTORE_RING_ERROR)
            name = ERRORS[error] if error < len(ERRORS) else "unknown"
            text += ", server's error %d (%s)" % (error, name)
        return text

    def _ring(self, name, data, prod):
        # In both directions the consumer's index stands right before the producer's.
        page = self.page
        return ByteRing(
            page + data,
            abi.XENSTORE_RING_SIZE,
            page + prod,
            page + prod - 4,
            "xenstore " + name,
        )

    def _indexes(self):
        """Return req_cons, req_prod, rsp_cons, rsp_prod."""
        at = self.page + abi.XENSTORE_RING_REQ_CONS
        return [hw.rd32(at + 4 * i) for i in range(4)]

    def _offers(self, feature):
        # Looked at anew each time: the bits may appear late.
        return bool(hw.rd32(self.page + abi.XENSTORE_RING_SERVER_FEATURES) & feature)

    async def _reconnect(self, why):
        """Have the server drop all that belongs to this connection and zero the indexes."""
        flag = self.page + abi.XENSTORE_RING_CONNECTION
        hw.wr32(flag, abi.XENSTORE_RECONNECT)
        hw.mb()
        self.loop.evtchn.send(self.port)
        deadline = self.loop.now() + TIMEOUT
        while hw.rd32(flag) != abi.XENSTORE_CONNECTED:
            if self.loop.now() >= deadline:
                raise NoXenstore(
                    "xenstore, %s: the server did not clear `connection` within %d s; oxenstored"
                    " does not after it has seen impossible indexes, until the toolstack makes the"
                    " connection anew; %s" % (why, TIMEOUT // SECOND, self.state())
                )
            await self.signal.wait(deadline)
