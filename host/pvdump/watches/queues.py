"""All queues: one for each domain, and two that belong to no domain.

Used by the dispatcher, under its lock. Rules:
- What was queued for a domain never reaches the next one with its domid, so each generation has a
  queue of its own.
- Events may come before their domain is found, and after it is gone. Their queue belongs to an
  unknown domain and is removed when it is empty. If the domid is used again while such events are
  queued, they may belong to either domain: they are dropped and told as lost.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from .domains import INTRODUCED, RELEASED
from .queue import DOMAINS, NO_DOMAIN, DomainIdentity, Queue

if TYPE_CHECKING:
    from .dispatcher import Subscription


class Queues:
    """The queues of a dispatcher.

    Args:
        limit: the number of events a queue holds.
        clock: gives ns.
        ready: called with a queue that has events.
    """

    def __init__(
        self, limit: int, clock: Callable[[], int], ready: Callable[[Queue], None]
    ) -> None:
        self._limit = limit
        self._clock = clock
        self._ready = ready
        self.no_domain = Queue(NO_DOMAIN, limit)
        self.domains = Queue(DOMAINS, limit)
        self._table: dict[int, Queue] = {}
        self._leaving: set[Queue] = set()  # of domains that are gone, until they are empty
        self._generations: dict[int, int] = {}
        self._followers: dict[Subscription, None] = {}  # in the order they came

    def of(self, domid: int | None) -> Queue:
        """Return the queue for an event of a domain, made here if there is none."""
        if domid is None:
            return self.no_domain
        queue = self._table.get(domid)
        return self._new(domid) if queue is None else queue

    def all(self) -> Iterator[Queue]:
        """Return all queues, those of domains that leave last."""
        yield self.no_domain
        yield self.domains
        yield from self._table.values()
        yield from self._leaving

    def drained(self, queue: Queue) -> None:
        """Remove a queue that is empty and has no handler, unless its domain is known."""
        if queue.gone:
            self._leaving.discard(queue)
        elif isinstance(queue.domain, DomainIdentity) and not queue.known:
            del self._table[queue.domain.domid]

    def follow(self, follower: Subscription) -> None:
        """Queue for a follower the domains that are there, and from now on each change."""
        self._followers[follower] = None
        for queue in self._table.values():
            if queue.known:
                self._tell(follower, queue, INTRODUCED)

    def forget(self, subscription: Subscription) -> None:
        """Drop what is queued for a subscription, and queue nothing more."""
        self._followers.pop(subscription, None)
        for queue in self.all():
            queue.purge(subscription)

    def appear(self, domid: int, losses: Counter[Subscription] | None = None) -> None:
        """Note that a domain is there. losses: dropped events that may have been its own."""
        early = self._table.get(domid)
        if early is not None and early.domain != DomainIdentity(domid, 1):
            losses = self._detach(early)
        queue = self.of(domid)
        queue.known = True
        for follower in self._followers:
            self._tell(follower, queue, INTRODUCED)
        for subscription, count in (losses or {}).items():
            queue.lose(subscription, count, self._clock())
        self._ready(queue)

    def vanish(self, domid: int) -> Counter[Subscription]:
        """Note that a domain is gone. Returns the number of dropped events by subscription."""
        queue = self._table[domid]
        told = [f for f in self._followers if not queue.holds(f, INTRODUCED)]
        losses = self._detach(queue)
        for follower in told:
            self._tell(follower, queue, RELEASED)
        return losses

    def _new(self, domid: int) -> Queue:
        domain = DomainIdentity(domid, self._generations.setdefault(domid, 1))
        queue = self._table[domid] = Queue(domain, self._limit)
        return queue

    def _detach(self, queue: Queue) -> Counter[Subscription]:
        """Drop a queue's events and take it off the table; its running handler goes on."""
        assert isinstance(queue.domain, DomainIdentity)
        domid, generation = queue.domain
        del self._table[domid]
        self._generations[domid] = generation + 1
        queue.known, queue.gone = False, True
        if queue.busy:
            self._leaving.add(queue)
        losses = queue.clear()
        for follower in self._followers:
            losses.pop(follower, None)
        return losses

    def _tell(self, follower: Subscription, queue: Queue, path: str) -> None:
        queue.put_always(follower, path, "", self._clock())
        if queue.gone:
            self._leaving.add(queue)
        self._ready(queue)
