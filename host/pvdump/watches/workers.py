"""The threads that take turns at the queues.

Used by the dispatcher. The rule: while a queue is ready, one worker that is in no handler is called
to it, and that worker calls the next one before it enters a handler. So a handler that never
returns costs its thread and nothing else, and a few threads do a burst of short events.

The number of threads has no fixed bound: with a bound of N, N stalled handlers would hold up every
other domain, which the dispatcher exists to prevent. There are never more threads than domains
whose handler is running, and one. A worker without work ends after IDLE_SECONDS, the one that has
been idle longest first. If the system refuses a thread, the queue waits for a worker that becomes
free, and the status counts it.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

from .queue import Queue

IDLE_SECONDS = 10.0

Wait = Callable[[threading.Lock], bool]


def wait_for_work(wake: threading.Lock) -> bool:
    """Wait until the lock is free. Returns False after IDLE_SECONDS without work."""
    return wake.acquire(timeout=IDLE_SECONDS)


class Worker(threading.Thread):
    """A thread that does work(worker) and ends; wake: a lock that is released to call it."""

    def __init__(self, work: Callable[[Worker], None]) -> None:
        # A daemon, because a handler that stalls for ever would keep the process from ending.
        super().__init__(name="watches", daemon=True)
        self.wake = threading.Lock()
        self.wake.acquire()
        self._work = work

    def run(self) -> None:
        """Work until told to leave."""
        self._work(self)


class Workers:
    """The workers of a dispatcher.

    Args:
        lock: the dispatcher's; it is held by callers of add(), close() and idle().
        handle: handles one event of a queue; called without the lock.
        drained: called with the lock when a queue has no events left.
        wait: waits for work, see wait_for_work().
    """

    def __init__(
        self,
        lock: threading.Lock,
        handle: Callable[[Queue], None],
        drained: Callable[[Queue], None],
        wait: Wait,
    ) -> None:
        self._lock = lock
        self._handle = handle
        self._drained = drained
        self._wait = wait
        self._ready: deque[Queue] = deque()
        self._idle: list[Worker] = []
        self._called = False  # whether a worker is called to the ready queues
        self._closed = False
        self.all: set[Worker] = set()
        self.refused = 0

    def add(self, queue: Queue) -> None:
        """Have the events of a queue handled."""
        if not queue.busy and queue.waiting():
            queue.busy = True
            self._ready.append(queue)
        self._call()

    def idle(self) -> int:
        """Return the number of idle workers."""
        return len(self._idle)

    def close(self) -> None:
        """Have every worker end after the handler it is in."""
        self._closed = True
        self._ready.clear()
        while self._idle:
            self._idle.pop().wake.release()

    def _call(self) -> None:
        if self._called or self._closed or not self._ready:
            return
        if self._idle:
            self._idle.pop().wake.release()
        else:
            worker = Worker(self._work)
            try:
                worker.start()
            except RuntimeError:  # the system has no thread left
                self.refused += 1
                return
            self.all.add(worker)
        self._called = True

    def _work(self, worker: Worker) -> None:
        called = True
        while called:
            with self._lock:
                self._called = False
                queue = self._next(worker)
            while queue is not None:
                self._handle(queue)
                with self._lock:
                    if queue.waiting() and not self._closed:
                        self._ready.append(queue)
                    else:
                        queue.busy = False
                        self._drained(queue)
                    queue = self._next(worker)
            called = self._rest(worker)

    def _next(self, worker: Worker) -> Queue | None:
        if self._closed or not self._ready:
            if not self._closed:
                self._idle.append(worker)
            return None
        queue = self._ready.popleft()
        self._call()
        return queue

    def _rest(self, worker: Worker) -> bool:
        """Wait to be called. Returns False when the worker is to end."""
        called = not self._closed and self._wait(worker.wake)
        with self._lock:
            if not self._closed and worker not in self._idle:
                if not called:
                    worker.wake.acquire()  # it was called at the moment it gave up
                return True
            if not self._closed:
                self._idle.remove(worker)
            self.all.discard(worker)
            return False
