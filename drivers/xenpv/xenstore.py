"""Xenstore client on the shared ring: requests in flight, matched to their replies by req_id.

Used by xenbus and by whoever reads or writes the store. One task moves bytes both ways, so a
message may be larger than the ring and replies may come in any order. On entry the ring may hold
what an earlier kernel left: where the server offers it the connection is made anew through the
`connection` field, else the ring is used from the indexes found. On exit the same handshake leaves
the ring as the next kernel expects it. Rule: a fault of the peer ends this connection with a
message, and every caller gets that message.
Source: xen/include/public/io/xs_wire.h, docs/misc/xenstore-ring.txt.
"""

import hw

from . import abi, xs_wire
from .errors import RingCorrupt, Timeout, XenError, XenstoreError
from .loop import SECOND, Signal
from .ring import ByteRing

NAMES = {
    abi.XS_DIRECTORY: "directory",
    abi.XS_READ: "read",
    abi.XS_WRITE: "write",
    abi.XS_MKDIR: "mkdir",
    abi.XS_RM: "rm",
}
TIMEOUT = 5 * SECOND
# A server that has not answered for so long is told again: an event may have been lost.
TELL_AGAIN = SECOND


def _printable(raw):
    return "".join(chr(c) if 32 <= c < 127 else "?" for c in raw)


class _Reply:
    """A request that waits for its answer."""

    def __init__(self, type):
        self.type = type
        self.packet = None
        self.fault = None
        self.signal = Signal()


class Xenstore:
    """xen: Hypercalls; loop: Loop."""

    def __init__(self, xen, loop):
        self.xen = xen
        self.loop = loop
        self.page = 0
        self.port = 0
        self.reconnects = False
        self._out = bytearray()
        self._waiting = {}
        self._parser = xs_wire.Parser()
        self._fault = None
        self._pump = None
        self._kick = None
        # Far from where an earlier kernel's ids are, so that its late replies match nothing.
        self._req_id = (hw.now() & 0x3FFFFFFF) | 0x40000000

    async def connect(self):
        """Find the ring and take it over. Raises XenError (there is none), Timeout, RingCorrupt."""
        pfn = self.xen.hvm_param(abi.HVM_PARAM_STORE_PFN)
        port = self.xen.hvm_param(abi.HVM_PARAM_STORE_EVTCHN)
        if pfn == 0 or pfn >= 1 << 40:
            why = "the toolstack gave this domain none" if pfn == 0 else "it is not ready"
            raise XenError("no xenstore: HVM_PARAM_STORE_PFN is 0x%x; %s" % (pfn, why))
        self.loop.evtchn.check(port, "xenstore")
        self.page = pfn * abi.PAGE_SIZE
        self.port = port
        self._requests = self._ring("request", abi.XENSTORE_RING_REQ, abi.XENSTORE_RING_REQ_PROD)
        self._replies = self._ring("reply", abi.XENSTORE_RING_RSP, abi.XENSTORE_RING_RSP_PROD)
        self._kick = self.loop.port(port)
        features = hw.rd32(self.page + abi.XENSTORE_RING_SERVER_FEATURES)
        self.reconnects = bool(features & abi.XENSTORE_SERVER_FEATURE_RECONNECTION)
        if self.reconnects:
            await self._reconnect("taking the ring over")
        else:
            self._resync()
        self._pump = self.loop.spawn(self._move())

    def connected(self):
        """Whether requests can be sent."""
        return self._pump is not None and self._fault is None

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

    async def _reconnect(self, why):
        """Have the server drop all that belongs to this connection and zero the indexes."""
        flag = self.page + abi.XENSTORE_RING_CONNECTION
        hw.wr32(flag, abi.XENSTORE_RECONNECT)
        hw.mb()
        self.loop.evtchn.send(self.port)
        deadline = hw.now() + TIMEOUT
        while hw.rd32(flag) != abi.XENSTORE_CONNECTED:
            if hw.now() >= deadline:
                raise Timeout(
                    "xenstore, %s: the server did not clear `connection` within 5 s; %s"
                    % (why, self.state())
                )
            await self._kick.wait(deadline)

    def _resync(self):
        """Go on from the indexes found; what an earlier kernel did not read is nobody's."""
        while self._replies.read(abi.XENSTORE_RING_SIZE):
            pass
        self._requests.used()
        self.loop.evtchn.send(self.port)

    def state(self):
        """The ring's indexes and the server's error field, for messages."""
        page = self.page
        text = "indexes req %x/%x rsp %x/%x (prod/cons)" % (
            hw.rd32(page + abi.XENSTORE_RING_REQ_PROD),
            hw.rd32(page + abi.XENSTORE_RING_REQ_CONS),
            hw.rd32(page + abi.XENSTORE_RING_RSP_PROD),
            hw.rd32(page + abi.XENSTORE_RING_RSP_CONS),
        )
        features = hw.rd32(page + abi.XENSTORE_RING_SERVER_FEATURES)
        if features & abi.XENSTORE_SERVER_FEATURE_ERROR:
            error = hw.rd32(page + abi.XENSTORE_RING_ERROR)
            names = ("none", "communication", "ring index", "protocol")
            text += ", server's error %d (%s)" % (error, names[error] if error < 4 else "unknown")
        return text

    async def _move(self):
        """The task that moves bytes both ways until the connection ends."""
        try:
            while True:
                moved = self._send() + self._receive()
                if moved == 0:
                    await self._kick.wait(None)
        except XenError as e:
            self._end(e)

    def _send(self):
        if not self._out:
            return 0
        count = self._requests.write(self._out)
        if count:
            self._out = self._out[count:]
            self.loop.evtchn.send(self.port)
        return count

    def _receive(self):
        data = self._replies.read(abi.XENSTORE_RING_SIZE)
        if data:
            self.loop.evtchn.send(self.port)
        self._parser.feed(data)
        packet = self._parser.next()
        while packet is not None:
            self._deliver(packet)
            packet = self._parser.next()
        return len(data)

    def _deliver(self, packet):
        """Give a reply to its caller. One that nobody waits for is dropped."""
        reply = None
        if packet.type != abi.XS_WATCH_EVENT:
            reply = self._waiting.pop(packet.req_id, None)
        if reply is None:
            return
        if packet.type not in (reply.type, abi.XS_ERROR):
            self._waiting[packet.req_id] = reply
            raise RingCorrupt(
                "xenstore: reply of type %d to req_id %d, which asked for type %d"
                % (packet.type, packet.req_id, reply.type)
            )
        reply.packet = packet
        reply.signal.set()

    def _end(self, fault):
        """The connection is over: everyone who waits gets the reason."""
        self._fault = "%s; %s" % (fault, self.state())
        for reply in self._waiting.values():
            reply.fault = self._fault
            reply.signal.set()
        self._waiting = {}

    async def request(self, type, payload, what, timeout=TIMEOUT):
        """Send one request and wait for its reply.

        type: XS_*; payload: bytes; what: for messages; timeout: ns. Returns the reply's payload.
        Raises XenstoreError (the server's answer), Timeout, RingCorrupt (the connection is over).
        """
        if self._fault is not None:
            raise RingCorrupt(self._fault)
        self._req_id = (self._req_id + 1) & 0x7FFFFFFF
        req_id = self._req_id
        packet = xs_wire.Packet(type, req_id, 0, payload)
        reply = _Reply(type)
        self._out.extend(packet.encode())
        self._waiting[req_id] = reply
        self._kick.set()
        deadline = hw.now() + timeout
        while reply.packet is None and reply.fault is None:
            if hw.now() >= deadline:
                self._waiting.pop(req_id, None)
                raise Timeout(
                    "xenstore %s: no reply within %d ms; %s"
                    % (what, timeout // 1000000, self.state())
                )
            await reply.signal.wait(min(deadline, hw.now() + TELL_AGAIN))
            if reply.packet is None and reply.fault is None:
                self.loop.evtchn.send(self.port)
        if reply.fault is not None:
            raise RingCorrupt(reply.fault)
        if reply.packet.type == abi.XS_ERROR:
            raise XenstoreError(what, xs_wire.error_name(reply.packet.payload))
        return reply.packet.payload

    async def _ask(self, type, path, rest=b""):
        limit = abi.XENSTORE_ABS_PATH_MAX if path[:1] == "/" else abi.XENSTORE_REL_PATH_MAX
        raw = path.encode()
        if not 0 < len(raw) <= limit or b"\0" in raw:
            raise ValueError(
                "xenstore path of %d bytes: 1 to %d, no NUL, expected" % (len(raw), limit)
            )
        return await self.request(type, raw + b"\0" + rest, "%s %s" % (NAMES[type], path))

    async def read(self, path):
        """The node's value, bytes."""
        return await self._ask(abi.XS_READ, path)

    async def read_text(self, path, default=None):
        """The node's value as text; `default`, unless None, stands for a node that is not there."""
        try:
            value = await self.read(path)
        except XenstoreError as e:
            if e.code == "ENOENT" and default is not None:
                return default
            raise
        return _printable(value)

    async def read_int(self, path, default=None):
        """The node's value as a decimal number >= 0; `default`, unless None, if it is not there."""
        text = await self.read_text(path, None if default is None else str(default))
        if not text or len(text) > 20 or not all("0" <= c <= "9" for c in text):
            raise XenError("xenstore %s: a decimal number expected, '%s' found" % (path, text[:40]))
        return int(text)

    async def write(self, path, value):
        """Set the node's value; value: str or bytes."""
        await self._ask(abi.XS_WRITE, path, value.encode() if isinstance(value, str) else value)

    async def mkdir(self, path):
        await self._ask(abi.XS_MKDIR, path)

    async def rm(self, path):
        await self._ask(abi.XS_RM, path)

    async def directory(self, path):
        """Names of the node's children, a list of str."""
        payload = await self._ask(abi.XS_DIRECTORY, path)
        return [_printable(name) for name in xs_wire.strings(payload)]

    async def close(self):
        """Leave the ring to the next kernel: reconnect, or, without that, drained and silent."""
        if self._pump is None:
            return
        deadline = hw.now() + TIMEOUT
        while (self._out or self._waiting) and self._fault is None and hw.now() < deadline:
            await self.loop.sleep(SECOND // 1000)
        self._pump.cancel()
        self._pump = None
        if self._fault is None:
            self._fault = "xenstore: the connection was closed"
        try:
            if self.reconnects:
                await self._reconnect("handing the ring back")
        finally:
            self.loop.forget(self.port)
