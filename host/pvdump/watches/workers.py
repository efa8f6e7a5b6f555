"""The threads that take turns at the queues.

Used by the dispatcher. The rule: whenever a queue is ready, one worker that is in no handler is on
its way to it; it calls the next one before it enters a handler. So a handler that never returns
costs its thread and nothing else, and a burst of short events is the work of a few threads.

There is no upper bound on the threads on purpose: with one of N, N stalled handlers would hold up
every other domain, which is what the dispatcher is there to prevent. The bound is in what they do:
no more threads than domains whose handler is running, and one. A worker without work ends after
IDLE_SECONDS, the one that rested longest first. Where the system refuses a thread, the queue waits
for a worker that becomes free, and the status counts it.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

from .queue import Queue

IDLE_SECONDS = 10.0

Patience = Callable[[threading.Lock], bool]


def patience(wake: threading.Lock) -> bool:
    """Wait for work. Returns False when it is time to give up."""
    return wake.acquire(timeout=IDLE_SECONDS)


class Worker(threading.Thread):
    def __init__(self, live: Callable[[Worker], None]) -> None:
        # A daemon, or a handler that stalls for ever would keep the process from ending.
        super().__init__(name="watches", daemon=True)
        self.wake = threading.Lock()
        self.wake.acquire()
        self._live = live

    def run(self) -> None:
        self._live(self)


class Workers:
    """handle(queue): handles one event, without the lock; drained(queue): with it, none is left.

    lock: the dispatcher's; add(), close() and the counts want it held.
    """

    def __init__(
        self,
        lock: threading.Lock,
        handle: Callable[[Queue], None],
        drained: Callable[[Queue], None],
        patience: Patience,
    ) -> None:
        self._lock = lock
        self._handle = handle
        self._drained = drained
        self._patience = patience
        self._ready: deque[Queue] = deque()
        self._idle: list[Worker] = []
        self._called = False  # a worker is on its way to the ready queues
        self._closed = False
        self.all: set[Worker] = set()
        self.refused = 0

    def add(self, queue: Queue) -> None:
        """The queue has events: see to it that they are handled."""
        if not queue.busy and queue.waiting():
            queue.busy = True
            self._ready.append(queue)
        self._call()

    def idle(self) -> int:
        return len(self._idle)

    def close(self) -> None:
        """Let every worker end after the handler it is in."""
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
            worker = Worker(self._live)
            try:
                worker.start()
            except RuntimeError:  # the system has no thread left
                self.refused += 1
                return
            self.all.add(worker)
        self._called = True

    def _live(self, worker: Worker) -> None:
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
        called = not self._closed and self._patience(worker.wake)
        with self._lock:
            if not self._closed and worker not in self._idle:
                if not called:
                    worker.wake.acquire()  # called in the moment it gave up
                return True
            if not self._closed:
                self._idle.remove(worker)
            self.all.discard(worker)
            return False
