"""One connection to a xenstore server, without I/O: requests in, bytes out; bytes in, events out.

Used by client.Xenstore over any transport. Requests get a req_id of their own and wait in a buffer
of fixed size until the transport takes their bytes; replies are matched to them in any order.
Rules: a request is taken whole or not at all, and a reply is handed out whole or stays, so a
shortage of memory or room only delays; a reply that nobody waits for is counted and dropped; bytes
that break the protocol raise RingCorrupt with the field and its value, and the connection is over.
Source: docs/misc/xenstore.txt, xen/include/public/io/xs_wire.h.
"""

from .. import abi
from ..errors import RingCorrupt
from . import wire

OUT_SIZE = 4 * wire.PACKET_MAX
ABANDONED = -1


class Reply:
    """The answer to a request.

    owner: the object that request() was given; error: the server's error, such as "ENOENT", or
    None; payload: bytes.
    """

    def __init__(self, owner, error, payload):
        self.owner = owner
        self.error = error
        self.payload = payload


class WatchEvent:
    """A change that a watch tells of. path, token: bytes, as the server sent them."""

    def __init__(self, path, token):
        self.path = path
        self.token = token


class Session:
    """The state of one connection. strays: how many replies nobody waited for.

    Args:
        first_id: the req_id of the first request.
    """

    def __init__(self, first_id):
        self._next_id = first_id & 0x7FFFFFFF
        self._out = wire.Buffer(OUT_SIZE)
        self._parser = wire.Parser()
        # A packet that was parsed but has not become an event yet.
        self._packet = None
        # req_id to (kind, tx_id, owner), or to ABANDONED.
        self._flying = {}
        self.strays = 0

    def flying(self):
        """Return how many requests have no reply yet."""
        return len(self._flying)

    def owners(self):
        """Return the owners of the requests that have no reply yet."""
        return [asked[2] for asked in self._flying.values() if asked != ABANDONED]

    # Out.

    def fits(self, payload):
        """Return whether a request with this payload can be taken now."""
        return abi.XSD_SOCKMSG_SIZEOF + len(payload) <= self._out.room()

    def request(self, kind, tx_id, payload, owner=None):
        """Take a request that fits().

        Args:
            kind: XS_*.
            tx_id: its transaction, 0 for none.
            payload: bytes.
            owner: any object; the Reply will have it.

        Returns: its req_id. Raises: ValueError when the payload is over XENSTORE_PAYLOAD_MAX.
        """
        req_id = self._next_id
        # An id that an old request still holds is passed over.
        while req_id in self._flying:
            req_id = (req_id + 1) & 0x7FFFFFFF
        packet = wire.header(kind, req_id, tx_id, payload) + payload
        self._flying[req_id] = (kind, tx_id, owner)
        try:
            self._out.put(packet)
        except MemoryError:
            del self._flying[req_id]
            raise
        self._next_id = (req_id + 1) & 0x7FFFFFFF
        return req_id

    def abandon(self, req_id):
        """Have the reply to a request dropped when it comes."""
        if req_id in self._flying:
            self._flying[req_id] = ABANDONED

    def outgoing(self):
        """Return a view of the bytes to send next; tell sent() how many of them went."""
        return self._out.view()

    def sent(self, count):
        """Drop the first bytes of outgoing(): the transport has taken them."""
        self._out.drop(count)

    # In.

    def room(self):
        """Return how many bytes receive() can take now; never 0 once event() has given None."""
        return self._parser.room()

    def receive(self, data):
        """Take the next bytes of the stream, at most room() of them."""
        self._parser.feed(data)

    def event(self):
        """Return the next Reply or WatchEvent, None to wait for more bytes. Raises RingCorrupt."""
        event = None
        while event is None:
            # The packet stays until it has become an event, because memory may run out at any step.
            if self._packet is None:
                self._packet = self._parser.next()
                if self._packet is None:
                    return None
            if self._packet.type == abi.XS_WATCH_EVENT:
                event = self._watch_event(self._packet)
            else:
                event = self._reply(self._packet)
            self._packet = None
        return event

    def _reply(self, packet):
        """Make a Reply of a packet, None if nobody waits for it. Raises RingCorrupt."""
        asked = self._flying.get(packet.req_id, ABANDONED)
        reply = None
        if asked != ABANDONED:
            kind, tx_id, owner = asked
            if packet.type not in (kind, abi.XS_ERROR):
                raise RingCorrupt(
                    "xenstore: reply of type %d to req_id %d, which asked for type %d"
                    % (packet.type, packet.req_id, kind)
                )
            if packet.tx_id != tx_id:
                raise RingCorrupt(
                    "xenstore: reply with tx_id %d to req_id %d, which was sent with tx_id %d"
                    % (packet.tx_id, packet.req_id, tx_id)
                )
            error = None
            if packet.type == abi.XS_ERROR:
                error = wire.error_name(packet.payload)
            reply = Reply(owner, error, packet.payload)
        else:
            self.strays += 1
        self._flying.pop(packet.req_id, None)
        return reply

    def _watch_event(self, packet):
        """Make a WatchEvent of a packet. Raises RingCorrupt."""
        parts = packet.payload.split(b"\0")
        if len(parts) < 3:
            raise RingCorrupt(
                "xenstore: watch event whose %d bytes are not path and token, each with its NUL"
                % len(packet.payload)
            )
        return WatchEvent(parts[0], parts[1])
