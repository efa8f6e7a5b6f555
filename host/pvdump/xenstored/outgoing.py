"""The packets that wait for one client.

Held by a connection. Rules:
- Replies are kept until they are sent. An event that waits is not queued again.
- Beyond EVENTS_HELD bytes, further events are lost.
- A request is outstanding until its reply and all events that it caused are sent. An event that has
  waited for EVENT_TIMEOUT does not hold up its request any longer, so that a guest which does not
  read cannot stall the guests whose nodes it watches. A guest loses such an event, as with
  C xenstored; a client on a socket is a tool of domain 0 and keeps it.
Source: tools/xenstored of Xen 4.20, for the timeout and for which events count as the same.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .connection import ClientConnection

PACKET_COST = 256  # bytes of memory that a waiting packet takes besides its own
EVENTS_HELD = 5 << 19  # bytes that wait for a client before its events are lost
EVENT_TIMEOUT = 20_000_000_000  # ns


class Request:
    """A request that still owes packets: its reply, and the events that it caused."""

    __slots__ = ("connection", "owed", "session")

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection
        self.session = connection.session
        self.owed = 0

    def done(self) -> None:
        """Count a packet that it owed as sent or given up."""
        self.owed -= 1
        connection = self.connection
        if self.owed == 0 and connection.session is self.session:
            stalled = connection.stalled()
            connection.outstanding -= 1
            if stalled:
                connection.wake()


class Item:
    """A packet that waits to be sent.

    Args:
        data: its bytes.
        request: the request that owes it, or None.
        event: the payload of a watch event, None for a reply.
        expires: ns at which an event has waited too long.
    """

    __slots__ = ("cost", "data", "event", "expires", "request")

    def __init__(
        self, data: bytes, request: Request | None, event: bytes | None = None, expires: int = 0
    ) -> None:
        self.data = data
        self.request = request
        self.event = event
        self.expires = expires
        self.cost = PACKET_COST + len(data)
        if request is not None:
            request.owed += 1

    def done(self) -> None:
        """Release the request that owes it; later calls do nothing."""
        request, self.request = self.request, None
        if request is not None:
            request.done()


class Outgoing:
    """A queue of packets.

    Args:
        keeps_expired: whether events that waited too long stay in the queue.
    """

    def __init__(self, keeps_expired: bool) -> None:
        self.keeps_expired = keeps_expired
        self._items: deque[Item] = deque()
        self.clear()

    def clear(self) -> None:
        """Drop everything."""
        items, self._items = self._items, deque()
        self._sent = 0  # bytes of the first one
        self._events: set[bytes] = set()  # payloads of events of which nothing is sent yet
        self._waiting: deque[Item] = deque()  # events that have not expired, oldest first
        self.held = 0  # bytes, as Item counts them
        self.lost = 0  # events for which there was no room, or that waited too long
        for item in items:
            item.done()

    def __bool__(self) -> bool:
        return bool(self._items)

    def put(self, item: Item) -> None:
        """Queue a packet."""
        self._items.append(item)
        self.held += item.cost
        if item.event is not None:
            self._waiting.append(item)
            self._events.add(item.event)

    def has_event(self, payload: bytes) -> bool:
        """Return whether such an event waits, of which nothing is sent yet."""
        return payload in self._events

    def full(self) -> bool:
        """Return whether there is no room for another event, which then counts as lost."""
        if self.held <= EVENTS_HELD:
            return False
        self.lost += 1
        return True

    # Sending.

    def take(self, limit: int) -> bytes:
        """Return up to limit bytes to send next; drop() them when they are on their way."""
        pieces = []
        skip = self._sent
        for item in self._items:
            pieces.append(item.data[skip : skip + limit])
            limit -= len(pieces[-1])
            skip = 0
            if not limit:
                break
        return b"".join(pieces)

    def drop(self, count: int) -> None:
        """Drop the first `count` bytes of what take() gave: they were sent."""
        items = self._items
        count += self._sent
        while items:
            item = items[0]
            if not self._sent and count and item.event is not None:
                # What changes from now on is news that this event does not tell.
                self._events.discard(item.event)
            if count < len(item.data):
                break
            items.popleft()
            count -= len(item.data)
            self.held -= item.cost
            if self._waiting and self._waiting[0] is item:
                self._waiting.popleft()
            item.done()
            self._sent = 0
        self._sent = count

    def shuffle(self, choose: Callable[[int], int]) -> None:
        """Put the waiting replies in another order. choose: n -> 0..n-1"""
        items = list(self._items)
        places = [i for i, item in enumerate(items) if item.event is None and (i or not self._sent)]
        for last in range(len(places) - 1, 0, -1):
            one, other = places[last], places[choose(last + 1)]
            items[one], items[other] = items[other], items[one]
        self._items = deque(items)

    # Events that wait too long.

    def deadline(self) -> int | None:
        """Return when the oldest event has waited too long (ns), None if no event waits."""
        return self._waiting[0].expires if self._waiting else None

    def expire(self, now: int) -> None:
        """Give up the events that have waited too long. now: ns"""
        expired = set()
        while self._waiting and self._waiting[0].expires <= now:
            item = self._waiting.popleft()
            item.done()
            if not self.keeps_expired and not (self._sent and item is self._items[0]):
                expired.add(item)
        self.lost += len(expired)
        kept = []  # replies, and an event that is half sent
        while expired:
            item = self._items.popleft()
            if item in expired:
                expired.remove(item)
                self.held -= item.cost
                self._events.discard(item.event or b"")
            else:
                kept.append(item)
        self._items.extendleft(reversed(kept))
