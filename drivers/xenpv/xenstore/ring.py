"""The shared ring as a transport of xenstore: taking it over, moving bytes, handing it back.

Used by xenpv.xenstore in a guest. On entry the ring may hold what an earlier kernel left: where the
server offers it the connection is made anew through the `connection` field; a ring that was never
used is used; else the ring goes on from the indexes found, after the boundary of a message was
found in both directions. The server is told only when it may be asleep (see ring.ByteRing).
Source: xen/include/public/io/xs_wire.h, docs/misc/xenstore-ring.txt.
"""

import hw

from .. import abi
from ..bytering import ByteRing
from ..errors import RingCorrupt, Timeout, XenError
from ..loop import SECOND
from . import wire

TIMEOUT = 5 * SECOND
# How long a server that has taken a whole request takes to answer: as a rule, and at most.
QUIET = SECOND // 4
ANSWER = SECOND
# How long the boundary is looked for; a busy machine may take a second for each try.
SEARCH = 60 * SECOND
# How often a ring is emptied when it is left.
ROUNDS = 24
ERRORS = ("none", "communication", "ring index", "protocol")


class RingTransport:
    """xen: Hypercalls; loop: PollLoop.

    found: how the ring was come by, for messages; stale: an earlier kernel's watches and
    transactions may be in force still; sent, updates: how often the server was told, and how often
    a ring's index was moved.
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
        """Find the ring and take it over. Raises XenError (there is none), Timeout, RingCorrupt."""
        pfn = self.xen.hvm_param(abi.HVM_PARAM_STORE_PFN)
        port = self.xen.hvm_param(abi.HVM_PARAM_STORE_EVTCHN)
        if pfn == 0 or pfn >= 1 << 40:
            why = "the toolstack gave this domain none" if pfn == 0 else "it is not ready"
            raise XenError("no xenstore: HVM_PARAM_STORE_PFN is 0x%x; %s" % (pfn, why))
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
            await self._align()
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
        """Whether close() makes the server forget watches and transactions."""
        return self._offers(abi.XENSTORE_SERVER_FEATURE_RECONNECTION)

    # Bytes.

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
        """The ring's indexes and the server's error field, for messages."""
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
        """req_cons, req_prod, rsp_cons, rsp_prod."""
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
                raise Timeout(
                    "xenstore, %s: the server did not clear `connection` within 5 s; %s"
                    % (why, self.state())
                )
            await self.signal.wait(deadline)

    # Finding the boundary of a message.
    #
    # The server may wait for the rest of a request whose writer is dead. NULs complete it; after
    # its end sixteen of them are a header of type 0 (CONTROL) without payload, which every server
    # refuses to a guest with an error that has req_id 0. The phase of these headers is found so:
    # fifteen NULs are never answered if, and only if, they began at a boundary; those that are
    # answered come one byte closer to it. What seems to be a boundary may be a late answer, so it
    # is proved with more patience; where that finds an answer, all later tries have more, too.

    async def _align(self):
        deadline = self.loop.now() + SEARCH
        await self._drain(QUIET, deadline)
        padded = 0
        patience = QUIET
        likely = False
        while self.loop.now() < deadline:
            quiet = ANSWER if likely else patience
            padded += 15
            if await self._pad(15) or await self._drain(quiet, deadline):
                if likely:
                    patience = min(2 * patience, ANSWER)
                likely = False
                continue
            padded += 1
            if not await self._refused(await self._pad(1)):
                likely = False
                padded += wire.PACKET_MAX
                await self._pad(wire.PACKET_MAX)
                await self._drain(patience, deadline)
            elif quiet < ANSWER:
                likely = True
            else:
                if padded > 2 * 16:
                    self.found += ", in step after %d bytes" % padded
                return
        raise Timeout(
            "xenstore: no request of this guest is answered as it should be; %s" % self.state()
        )

    async def _pad(self, count):
        """Send NULs and wait until the server has taken them. Returns what it sent meanwhile."""
        left = bytes(count)
        came = b""
        waiting = count + self._requests.used()
        deadline = self.loop.now() + TIMEOUT
        while left or self._requests.used():
            rest = len(left) + self._requests.used()
            if rest < waiting:
                waiting = rest
                deadline = self.loop.now() + TIMEOUT
            if self.loop.now() >= deadline:
                raise Timeout(
                    "xenstore: the server took nothing from the ring for 5 s; %s" % self.state()
                )
            left = left[self.write(left) :]
            came += self.read(abi.XENSTORE_RING_SIZE)
            self.tell()
            await self.signal.wait(self.loop.now() + SECOND // 100)
        return came

    async def _drain(self, quiet, deadline):
        """Take replies away until none has come for `quiet` ns. Returns whether any came."""
        any_came = False
        until = self.loop.now() + quiet
        while self.loop.now() < until:
            if self.loop.now() >= deadline:
                raise Timeout(
                    "xenstore: the server does not stop sending to an earlier kernel; %s"
                    % self.state()
                )
            if self.read(abi.XENSTORE_RING_SIZE):
                any_came = True
                self.tell()
                until = self.loop.now() + quiet
            await self.signal.wait(until)
        return any_came

    async def _refused(self, came):
        """Whether the error comes that a header of NULs is answered with."""
        parser = wire.Parser()
        until = self.loop.now() + ANSWER
        while self.loop.now() < until:
            parser.feed(came)
            try:
                packet = parser.next()
            except RingCorrupt:
                return False
            if packet is None:
                await self.signal.wait(until)
            elif packet.type == abi.XS_ERROR and packet.req_id == 0:
                return True
            came = self.read(abi.XENSTORE_RING_SIZE)
        return False
