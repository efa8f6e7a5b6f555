"""One client of the store as bytes in and bytes out, without I/O.

The server makes it. A transport feeds it the bytes that came, sends the bytes that take() gives,
and offers a clock. Rules:
- Every request gets exactly one reply, with its req_id and tx_id; requests.py makes it. Watch
  events have 0 for both.
- A client that does not take its replies, or has too many requests outstanding, is not read from;
  outgoing.py says how long a request is outstanding.
- A packet over the wire's limits makes receive() raise RingCorrupt; the transport then stops
  serving this client.
Source: Xen docs/misc/xenstore.txt; xen/include/public/io/xs_wire.h.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from xenpv import abi
from xenpv.xenstore.wire import Packet, Parser

from . import requests, trace
from .domain import DOM0, DomainRecord, StoreError
from .outgoing import EVENT_TIMEOUT, Item, Outgoing, Request
from .transaction import Transaction
from .tree import Tree
from .watches import Watch

if TYPE_CHECKING:
    from .server import Xenstored

REPLIES_HELD = 1 << 20  # bytes that wait for a client before no more of its requests are read
U32 = 1 << 32


class ClientConnection:
    """The server's side of one client.

    Args:
        server: the store.
        domain: the domain as which the client acts.
        client: its name in traces.
    """

    def __init__(self, server: Xenstored, domain: DomainRecord, client: str) -> None:
        self.server = server
        self.domain = domain
        self.client = client
        self.watches: dict[tuple[str, bytes], Watch] = {}
        self._out = Outgoing(keeps_expired=domain.domid == DOM0)
        self.reset()
        self.detach()

    def attach(
        self,
        wake: Callable[[], None],
        now: Callable[[], int],
        wake_at: Callable[[int], None],
    ) -> None:
        """Take a transport.

        Args:
            wake: called when there is something to send or to answer.
            now: the transport's clock, ns.
            wake_at: called with the time (ns) at which the transport is to call expire(); it need
                keep one time only.
        """
        self.wake = wake
        self._now = now
        self._wake_at = wake_at
        self._timed = False
        self._arrange_expiry()

    def detach(self) -> None:
        """Go without a transport: nothing is sent, and no event expires."""
        self.attach(lambda: None, lambda: 0, lambda when: None)

    def reset(self) -> None:
        """Forget everything: parts of packets, replies, watches, transactions."""
        self.session = object()
        self.outstanding = 0
        self._parser = Parser()
        self.next_transaction = 1
        self.end_watches_and_transactions()
        self._out.clear()

    def end_watches_and_transactions(self) -> None:
        """Drop all watches and transactions of the client."""
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
        """Return whether the client must take replies before more of it is read."""
        limit = self.domain.limit("outstanding")
        return self._out.held > REPLIES_HELD or (limit is not None and self.outstanding >= limit)

    def half_received(self) -> bool:
        """Return whether part of a request has arrived."""
        return bool(self._parser.pending())

    def pending(self) -> bool:
        """Return whether there is something to send."""
        return bool(self._out)

    def take(self, limit: int) -> bytes:
        """Return up to limit bytes to send next; drop() them when they are on their way."""
        return self._out.take(limit)

    def drop(self, count: int) -> None:
        """Drop the first `count` bytes of what take() gave: they were sent."""
        self._out.drop(count)

    def shuffle(self, choose: Callable[[int], int]) -> None:
        """Put the waiting replies in another order. choose: n -> 0..n-1"""
        self._out.shuffle(choose)

    @property
    def lost(self) -> int:
        """Events for which there was no room, or that waited too long."""
        return self._out.lost

    def expire(self) -> None:
        """Give up the events that have waited too long. The transport calls it when due."""
        self._timed = False
        self._out.expire(self._now())
        self._arrange_expiry()

    def _arrange_expiry(self) -> None:
        """Have expire() called when the oldest event has waited too long."""
        deadline = self._out.deadline()
        if deadline is not None and not self._timed:
            self._timed = True
            self._wake_at(deadline)

    # Requests.

    def _answer(self, packet: Packet) -> None:
        if self.server.trace is not None:
            self.server.trace(trace.line("<", self.client, packet))
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
        """Return the nodes that a request works on: the tree's or its transaction's.

        Raises: StoreError ENOENT for an unknown transaction.
        """
        if packet.tx_id == 0:
            return self.server.tree
        if packet.tx_id not in self.transactions:
            raise StoreError("ENOENT")
        return self.transactions[packet.tx_id]

    def start_transaction(self) -> int:
        """Start a transaction. Returns its number, which is never 0."""
        number = self.next_transaction
        while number == 0 or number in self.transactions:
            number = (number + 1) % U32
        self.next_transaction = (number + 1) % U32
        self.transactions[number] = Transaction(self.server.tree, self.domain)
        return number

    # Events.

    def full(self) -> bool:
        """Return whether there is no room for another event, which is lost then."""
        full = self._out.full()
        if full:
            self.wake()
        return full

    def event(self, path: str, token: bytes) -> None:
        """Queue a watch event, unless the same one waits already."""
        payload = path.encode() + b"\0" + token + b"\0"
        # Of a special name each event counts: every domain that comes or goes is told.
        known = self._out.has_event(payload) and not path.startswith("@")
        if len(payload) > abi.XENSTORE_PAYLOAD_MAX or known or self.full():
            return
        packet = Packet(abi.XS_WATCH_EVENT, 0, 0, payload)
        self._send(packet, self.server.cause, payload, self._now() + EVENT_TIMEOUT)
        if not self._timed:
            self._arrange_expiry()

    def _send(
        self,
        packet: Packet,
        request: Request | None,
        event: bytes | None = None,
        expires: int = 0,
    ) -> None:
        if self.server.trace is not None:
            self.server.trace(trace.line(">", self.client, packet))
        self._out.put(Item(packet.encode(), request, event, expires))
        self.wake()
