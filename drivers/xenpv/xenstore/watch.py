"""A watch of the xenstore client: a bounded queue of paths that have changed.

Made by Xenstore.watch(). Rule: events come in the order of the changes; when the queue is full, new
ones are dropped and counted, and the caller of next() has to look at everything that it watches.
"""

from ..errors import RingCorrupt, Timeout
from ..loop import SECOND, Signal
from ..text import printable


class Watch:
    """The events of one watch.

    path: as it was asked for; token: str; rest: what a request of it has behind the path, bytes;
    dropped: how many events found the queue full.
    """

    def __init__(self, store, path, token, limit):
        self.path = path
        self.token = token
        self.rest = b""
        self.dropped = 0
        self.signal = Signal()
        self._store = store
        self._limit = limit
        self._events = []
        self._raw = path.encode()

    def take(self, path):
        """Take an event. path: bytes. Returns whether it can belong to this watch."""
        if not self._covers(path):
            return False
        # First: if memory runs out here, the event comes again, and must not be queued twice.
        self.signal.set()
        if len(self._events) >= self._limit:
            self.dropped += 1
        else:
            self._events.append(path)
        return True

    def _covers(self, path):
        base = self._raw
        if path == base or base == b"/":
            return True
        return path[: len(base)] == base and path[len(base) : len(base) + 1] == b"/"

    async def next(self, timeout=5 * SECOND):
        """Wait for the next change. timeout: ns, None: for ever.

        Returns: its path, str. Raises: Timeout; RingCorrupt when the watch or its connection has
        ended.
        """
        loop = self._store.loop
        deadline = None if timeout is None else loop.now() + timeout
        while not self._events:
            if not self._store.watching(self):
                why = self._store.fault() or "it has ended"
                raise RingCorrupt("xenstore watch %s: %s" % (self.path, why))
            if deadline is not None and loop.now() >= deadline:
                raise Timeout(
                    "xenstore watch %s: nothing changed within %d ms; %s"
                    % (self.path, timeout // 1000000, self._store.transport.state())
                )
            await self.signal.wait(deadline)
        return printable(self._events.pop(0))

    def waiting(self):
        """Return how many events wait to be taken."""
        return len(self._events)

    async def close(self):
        """End the watch. Raises XenstoreError, Timeout, RingCorrupt."""
        await self._store.unwatch(self)
