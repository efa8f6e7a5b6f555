"""One client of the store, without I/O: bytes in, bytes out.

Made by the server; a transport feeds it what came and sends what take() gives. Every request gets
exactly one reply with its req_id and tx_id (requests.py says what); watch events go out with both
0. A packet that breaks a limit is the client's fault: receive() raises RingCorrupt, and the
transport stops serving it. The rule: a client that does not take its replies is not read from any
more; a request counts as outstanding until its reply, and every event that it caused for others,
is on its way.
Source: Xen docs/misc/xenstore.txt; xen/include/public/io/xs_wire.h.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from xenpv import abi
from xenpv.xenstore.wire import Packet, Parser

from . import requests, trace
from .domain import Domain, StoreError
from .transaction import Transaction
from .tree import Tree
from .watches import Watch

if TYPE_CHECKING:
    from .server import Xenstored

REPLIES_HELD = 1 << 20  # bytes that wait for a client before no more of its requests are read
EVENTS_HELD = 5 << 19  # bytes that wait for a client before its events are lost
U32 = 1 << 32


class Request:
    """What a request still owes: its reply, and the events it caused."""

    __slots__ = ("connection", "owed", "session")

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.session = connection.session
        self.owed = 0

    def done(self) -> None:
        self.owed -= 1
        connection = self.connection
        if self.owed == 0 and connection.session is self.session:
            stalled = connection.stalled()
            connection.outstanding -= 1
            if stalled:
                connection.wake()


class Item:
    """A packet to be sent; event: its payload, for events of which one is enough."""

    __slots__ = ("data", "event", "is_reply", "request")

    def __init__(
        self, data: bytes, request: Request | None, is_reply: bool, event: bytes | None = None
    ) -> None:
        self.data = data
        self.request = request
        self.is_reply = is_reply
        self.event = event
        if request is not None:
            request.owed += 1

    def done(self) -> None:
        if self.request is not None:
            self.request.done()


class Connection:
    """client: its name in traces; wake: the transport's, called when there is something to do."""

    def __init__(self, server: Xenstored, domain: Domain, client: str) -> None:
        self.server = server
        self.domain = domain
        self.client = client
        self.wake: Callable[[], None] = lambda: None
        self._out: deque[Item] = deque()
        self.watches: dict[tuple[str, bytes], Watch] = {}
        self.reset()

    def reset(self) -> None:
        """Forget all of it: parts of packets, replies, watches, transactions."""
        self.session = object()
        self.outstanding = 0
        self.lost = 0  # events for which there was no room
        self._parser = Parser()
        old, self._out = self._out, deque()
        self._sent = 0  # bytes of the first of _out
        self._held = 0  # bytes of all of _out
        self._events: set[bytes] = set()
        self.next_transaction = 1
        self.end_watches_and_transactions()
        for item in old:
            item.done()

    def end_watches_and_transactions(self) -> None:
        for watch in self.watches.values():
            self.server.watches.remove(watch)
        self.watches = {}
        self.transactions: dict[int, Transaction] = {}

    # Bytes.

    def receive(self, data: bytes) -> None:
        """Take bytes of the stream and answer what is whole. Raises RingCorrupt."""
        self._parser.feed(data)
        self.work()

    def work(self) -> None:
        """Answer what has come, as long as the replies are taken. Raises RingCorrupt."""
        while not self.stalled():
            packet = self._parser.next()
            if packet is None:
                return
            self._answer(packet)

    def stalled(self) -> bool:
        """Whether the client has to take replies before more of it is read."""
        limit = self.domain.limit("outstanding")
        return self._held > REPLIES_HELD or (limit is not None and self.outstanding >= limit)

    def half_received(self) -> bool:
        return bool(self._parser.pending())

    def pending(self) -> bool:
        """Whether there is something to send."""
        return bool(self._out)

    def take(self, limit: int) -> bytes:
        """Up to limit bytes to send next; drop() them when they are on their way."""
        pieces = []
        skip = self._sent
        for item in self._out:
            pieces.append(item.data[skip : skip + limit])
            limit -= len(pieces[-1])
            skip = 0
            if not limit:
                break
        return b"".join(pieces)

    def drop(self, count: int) -> None:
        """So many bytes of what take() gave were sent."""
        self._held -= count
        count += self._sent
        while self._out and count >= len(self._out[0].data):
            item = self._out.popleft()
            count -= len(item.data)
            self._started(item)
            item.done()
        self._sent = count
        if count:
            self._started(self._out[0])

    def _started(self, item: Item) -> None:
        """What changes from now on is news that this event does not tell."""
        if item.event is not None:
            self._events.discard(item.event)

    def shuffle(self, choose: Callable[[int], int]) -> None:
        """Put the waiting replies in another order. choose: n -> 0..n-1"""
        items = list(self._out)
        places = [i for i, item in enumerate(items) if item.is_reply and (i or not self._sent)]
        for last in range(len(places) - 1, 0, -1):
            one, other = places[last], places[choose(last + 1)]
            items[one], items[other] = items[other], items[one]
        self._out = deque(items)

    # Requests.

    def _answer(self, packet: Packet) -> None:
        self._trace("<", packet)
        request = Request(self)
        try:
            payload, kind = requests.answer(self, packet), packet.type
            if len(payload) > abi.XENSTORE_PAYLOAD_MAX:
                raise StoreError("E2BIG")
        except StoreError as error:
            payload, kind = error.code.encode() + b"\0", abi.XS_ERROR
        self.outstanding += 1
        self._send(Packet(kind, packet.req_id, packet.tx_id, payload), request)
        if kind == abi.XS_WATCH:
            requests.first_event(self, packet)
        self.server.fire(request)

    def tree(self, packet: Packet) -> Transaction | Tree:
        """What a request works on. Raises StoreError ENOENT for an unknown transaction."""
        if packet.tx_id == 0:
            return self.server.tree
        if packet.tx_id not in self.transactions:
            raise StoreError("ENOENT")
        return self.transactions[packet.tx_id]

    def start_transaction(self) -> int:
        while self.next_transaction in (0, *self.transactions):
            self.next_transaction = (self.next_transaction + 1) % U32
        number = self.next_transaction
        self.next_transaction = (number + 1) % U32
        self.transactions[number] = Transaction(self.server.tree, self.domain)
        return number

    # What goes out.

    def event(self, path: str, token: bytes) -> None:
        """Queue a watch event, unless the same one waits already, as C xenstored does."""
        payload = path.encode() + b"\0" + token + b"\0"
        if len(payload) > abi.XENSTORE_PAYLOAD_MAX:
            return
        special = path.startswith("@")
        if payload in self._events:
            return
        if self._held > EVENTS_HELD:
            self.lost += 1
            self.wake()
            return
        packet = Packet(abi.XS_WATCH_EVENT, 0, 0, payload)
        if special:
            self._send(packet, self.server.cause, is_reply=False)
        else:
            self._events.add(payload)
            self._send(packet, self.server.cause, is_reply=False, event=payload)

    def _send(
        self,
        packet: Packet,
        request: Request | None,
        is_reply: bool = True,
        event: bytes | None = None,
    ) -> None:
        self._trace(">", packet)
        item = Item(packet.encode(), request, is_reply, event)
        self._out.append(item)
        self._held += len(item.data)
        self.wake()

    def _trace(self, direction: str, packet: Packet) -> None:
        if self.server.trace is not None:
            self.server.trace(trace.line(direction, self.client, packet))
