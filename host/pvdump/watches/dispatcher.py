"""Sorts watch events by domain and has each domain's events handled in order.

A backend host makes one over a Store. Handlers run in worker threads, one at a time for a domain,
and may block: a handler that stalls holds up its own domain and no other. Events of no domain have
a queue of their own, and so has the look at which domains there are.
The rule for a domid that is used again: what was queued for the old domain never reaches the new
one. Each domain has its own queue, known by domid and generation. When a domain goes, its queue is
dropped, and a handler that is still running ends (or stalls) beside the new domain's.
The design is that of the multithreaded xenwatch proposed for Linux on xen-devel in 2018, where each
domain has a kernel thread; here threads come and go with the work.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable
from typing import Optional

from xenpv.errors import XenError

from ..service.complaints import Complaints
from .domains import INTRODUCED, RELEASED, Domains, Handle, Store
from .queue import NO_DOMAIN, DomainIdentity, Entry, Event, Queue
from .queues import Queues
from .status import Row, Status, row
from .workers import Wait, Worker, Workers, wait_for_work

LIMIT = 1024  # events a queue holds
NOBODY = -1  # domain_of's answer for an event that is not wanted at all

DomainOf = Callable[[str, str], Optional[int]]
Handler = Callable[[Event], None]

log = logging.getLogger(__name__)


class Subscription:
    """A handler and what it is called for; made by Dispatcher.subscribe() and follow()."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        path: str,
        handler: Handler,
        name: str,
        domain_of: DomainOf | None = None,  # None: all go to the queue DOMAINS
    ) -> None:
        self.path = path
        self.handler = handler
        self.name = name
        self.domain_of = domain_of
        self.closed = False
        self.handle: Handle | None = None
        self.runners: set[Worker] = set()
        self._dispatcher = dispatcher

    def look(self, domid: int) -> None:
        """Queue an event of the subscribed path for a domain, so that its handler looks there."""
        self._dispatcher._put(self, domid, self.path, "")

    def close(self) -> None:
        """End it: drop its queued events, and wait for its running handlers.

        Called from one of its handlers, or from a handler that one of them waits for, it does not
        wait for that one. It raises XenError if the store's connection has ended, and is closed
        all the same.
        """
        self._dispatcher._unsubscribe(self)


class Dispatcher:
    """The queues, the workers, and the subscriptions that fill the queues.

    Used in a `with`, or with start() and close(). All methods may be called from any thread but the
    store's own.

    Args:
        store: the store whose watches are used.
        limit: the number of events a queue holds.
        clock: gives ns, for ages.
        wait: how workers wait for work, see workers.py.
    """

    def __init__(
        self,
        store: Store,
        *,
        limit: int = LIMIT,
        clock: Callable[[], int] = time.monotonic_ns,
        wait: Wait = wait_for_work,
    ) -> None:
        self._store = store
        self._clock = clock
        self._lock = threading.Lock()
        self._ended = threading.Condition(self._lock)  # a handler of a subscription ended
        self._domains = Domains(store)
        self._complaints = Complaints(clock, log.error)
        self._queues = Queues(limit, clock, lambda queue: self._workers.add(queue))
        self._workers = Workers(self._lock, self._handle, self._queues.drained, wait)
        self._subscriptions: set[Subscription] = set()
        self._awaits: dict[threading.Thread, Subscription] = {}

    # Start and end.

    def __enter__(self) -> Dispatcher:
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def start(self) -> None:
        """Begin to follow which domains there are. Raises XenError."""
        for path in (INTRODUCED, RELEASED):
            self._watch(Subscription(self, path, self._refresh, "domains"))

    def close(self) -> None:
        """Drop everything and wait for the running handlers; called from a handler, do not wait."""
        with self._lock:
            subscriptions, self._subscriptions = self._subscriptions, set()
            for subscription in subscriptions:
                subscription.closed = True
                self._queues.forget(subscription)
            self._workers.close()
            workers = set(self._workers.all)
        for subscription in subscriptions:
            # The connection may be what has ended.
            with contextlib.suppress(XenError, OSError):
                self._end_watch(subscription)
        if threading.current_thread() not in workers:
            for worker in workers:
                worker.join()

    # Subscribing.

    def subscribe(
        self, path: str, domain_of: DomainOf, handler: Handler, name: str | None = None
    ) -> Subscription:
        """Watch a path and call a handler for each event, in order within a domain.

        Args:
            path: the path.
            domain_of: (path, token) -> domid, None for no domain, NOBODY to leave the event out;
                called in the store's thread, must not block.
            handler: called with each Event in a worker; it may block.
            name: the name in the status and in complaints.

        Raises:
            XenError.
        """
        name = name or str(getattr(handler, "__qualname__", handler))
        return self._watch(Subscription(self, path, handler, name, domain_of))

    def follow(
        self,
        appeared: Callable[[DomainIdentity], None],
        vanished: Callable[[DomainIdentity], None],
        name: str = "follow",
    ) -> Subscription:
        """Call appeared(domain) for each domain, those already there first, and vanished(domain).

        Both are called in the domain's own queue: appeared first, unless events came before the
        domain was found; vanished last, after the handler that was running.
        """

        def handler(event: Event) -> None:
            assert event.domain is not None
            (appeared if event.path == INTRODUCED else vanished)(event.domain)

        follower = Subscription(self, INTRODUCED, handler, name)
        with self._lock:
            self._subscriptions.add(follower)
            self._queues.follow(follower)
        return follower

    def _watch(self, subscription: Subscription) -> Subscription:
        with self._lock:
            self._subscriptions.add(subscription)

        def tell(path: str, token: str) -> None:
            self._sort(subscription, path, token)

        try:
            subscription.handle = self._store.watch(subscription.path, tell)
        except BaseException:
            self._unsubscribe(subscription)
            raise
        if subscription.closed:  # by close(), meanwhile
            self._end_watch(subscription)
        return subscription

    def _unsubscribe(self, subscription: Subscription) -> None:
        caller = threading.current_thread()
        with self._lock:
            subscription.closed = True
            self._subscriptions.discard(subscription)
            self._queues.forget(subscription)
            self._awaits[caller] = subscription
            while any(not self._waits_for(worker, caller) for worker in subscription.runners):
                self._ended.wait()
            del self._awaits[caller]
        self._end_watch(subscription)

    def _waits_for(self, thread: threading.Thread, other: threading.Thread) -> bool:
        """Return whether a thread is the other one, or waits in close() for it."""
        seen: set[threading.Thread] = set()
        look = [thread]
        while look:
            thread = look.pop()
            if thread is other:
                return True
            if thread not in seen:
                seen.add(thread)
                awaited = self._awaits.get(thread)
                look += awaited.runners if awaited else ()
        return False

    def _end_watch(self, subscription: Subscription) -> None:
        with self._lock:
            handle, subscription.handle = subscription.handle, None
        if handle is not None:
            handle.close()

    # Sorting.

    def _sort(self, subscription: Subscription, path: str, token: str) -> None:
        """Put an event into its queue; in the store's thread."""
        domid = None
        if subscription.domain_of:
            try:
                domid = subscription.domain_of(path, token)
            except Exception as error:
                self._complaints.add(NO_DOMAIN, f"{subscription.name}: domain of {path}: {error!r}")
        if domid != NOBODY:
            self._put(subscription, domid, path, token)

    def _put(self, subscription: Subscription, domid: int | None, path: str, token: str) -> None:
        with self._lock:
            if subscription.closed:
                return
            if subscription.domain_of is None:
                queue = self._queues.domains
            else:
                queue = self._queues.of(domid)
            queue.put(subscription, path, token, self._clock())
            self._workers.add(queue)

    # Handling.

    def _handle(self, queue: Queue) -> None:
        """Handle one event of a queue, in a worker."""
        worker = threading.current_thread()
        assert isinstance(worker, Worker)
        with self._lock:
            if not queue.waiting():
                return
            entry = queue.take()
            queue.running, queue.running_since = entry, self._clock()
            subscription = entry.subscription
            subscription.runners.add(worker)
        domain = queue.domain if isinstance(queue.domain, DomainIdentity) else None
        failed = False
        try:
            subscription.handler(Event(entry.path, entry.token, domain, entry.lost))
        except BaseException as error:
            failed = True
            self._complain(queue, entry, error)
        finally:
            with self._lock:
                queue.running = None
                queue.handled += 1
                queue.failed += failed
                subscription.runners.discard(worker)
                self._ended.notify_all()

    def _complain(self, queue: Queue, entry: Entry, error: BaseException) -> None:
        whose = (
            f"domain {queue.domain.domid}"
            if isinstance(queue.domain, DomainIdentity)
            else queue.domain
        )
        said = type(error).__name__
        with contextlib.suppress(Exception):  # its str() may fail, too
            said = f"{said}: {error}"
        self._complaints.add(
            queue.domain, f"{entry.subscription.name}, {whose}, {entry.path}: {said}"
        )
        log.debug("%s", said, exc_info=error)

    def _refresh(self, event: Event) -> None:
        """Look which domains have come or gone."""
        changes = self._domains.refresh(event.path == RELEASED)
        with self._lock:
            for domid in changes.vanished:
                self._queues.vanish(domid)
            for domid in changes.replaced:
                self._queues.appear(domid, self._queues.vanish(domid))
            for domid in changes.appeared:
                self._queues.appear(domid)

    def status(self) -> Status:
        """Return the state of every queue, the domains' by domid, and of the workers."""
        with self._lock:
            now = self._clock()
            rows = [row(queue, now) for queue in self._queues.all()]
            workers = self._workers
            counts = len(workers.all), workers.idle(), workers.refused
        return Status(sorted(rows, key=Row.order), *counts)
