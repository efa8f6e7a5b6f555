"""One domain's queue of watch events: bounded, in order, without repeats.

Used by the dispatcher, under its lock. Rules:
- An event that is queued already is not queued again. A watch event says that something changed,
  not what; the handler reads the store when its turn comes, which is after both changes. xenstored
  itself does the same since XSA-326.
- A full queue drops a new event and puts one entry at its end for the subscription that lost it, so
  that its handler looks at everything. While that entry waits, further losses are added to it.
  There is one such entry for each subscription, beyond the bound.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from .dispatcher import Subscription

NO_DOMAIN, DOMAINS = "no domain", "domains"  # the queues that are no domain's


class DomainIdentity(NamedTuple):
    """A domain by its domid and, since a domid can be used again, its generation."""

    domid: int
    generation: int


class Event(NamedTuple):
    """An event, as its handler gets it.

    path, token: as the store sent them.
    domain: the domain it belongs to, or None.
    lost: number of events that were dropped. If it is not 0, path is the one subscribed to, and
        whatever is below it for this domain may have changed.
    """

    path: str
    token: str
    domain: DomainIdentity | None
    lost: int = 0


class Entry:
    """A queued event. since: ns of the dispatcher's clock when it was queued."""

    __slots__ = ("lost", "path", "since", "subscription", "token")

    def __init__(self, subscription: Subscription, path: str, token: str, since: int) -> None:
        self.subscription = subscription
        self.path = path
        self.token = token
        self.since = since
        self.lost = 0


class Queue:
    """A queue.

    Args:
        domain: the domain, or NO_DOMAIN or DOMAINS.
        limit: the number of events it holds.
        known: whether the domain is known to be there.
    """

    def __init__(self, domain: DomainIdentity | str, limit: int, known: bool = False) -> None:
        self.domain = domain
        self.limit = limit
        self.known = known
        self.gone = False  # the domain is gone, its last handler is still running
        self.busy = False  # a worker has it, or will
        self.running: Entry | None = None
        self.running_since = 0
        self.handled = self.dropped = self.failed = 0
        self._entries: OrderedDict[tuple[Subscription, str | None], Entry] = OrderedDict()

    def waiting(self) -> int:
        """Return the number of events that wait."""
        return len(self._entries)

    def holds(self, subscription: Subscription, path: str) -> bool:
        """Return whether an event of this path waits for the subscription."""
        return (subscription, path) in self._entries

    def put(self, subscription: Subscription, path: str, token: str, now: int) -> None:
        """Queue an event, unless it is queued or there is no room."""
        if (subscription, path) in self._entries:
            return
        if len(self._entries) < self.limit:
            self.put_always(subscription, path, token, now)
        else:
            self.lose(subscription, 1, now)

    def put_always(self, subscription: Subscription, path: str, token: str, now: int) -> None:
        """Queue an event beyond the limit: a domain comes or goes only once."""
        self._entries[subscription, path] = Entry(subscription, path, token, now)

    def lose(self, subscription: Subscription, count: int, now: int) -> None:
        """Note that a subscription lost events, for its handler to be told."""
        self.dropped += count
        entry = self._entries.get((subscription, None))
        if entry is None:
            entry = Entry(subscription, subscription.path, "", now)
            self._entries[subscription, None] = entry
        entry.lost += count

    def take(self) -> Entry:
        """Remove and return the oldest event."""
        return self._entries.popitem(last=False)[1]

    def oldest(self) -> Entry | None:
        """Return the oldest event, or None."""
        return next(iter(self._entries.values()), None)

    def purge(self, subscription: Subscription) -> None:
        """Drop what is queued for one subscription."""
        for key in [key for key in self._entries if key[0] is subscription]:
            del self._entries[key]

    def clear(self) -> Counter[Subscription]:
        """Drop all. Returns how many events each subscription loses by that."""
        losses: Counter[Subscription] = Counter()
        for entry in self._entries.values():
            losses[entry.subscription] += entry.lost or 1
        self._entries.clear()
        return losses
