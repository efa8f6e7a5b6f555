"""Calls that are made later, by one thread for all devices.

Used by dom0.py. The rule: the thread is started with the process, so that later() cannot fail for
want of one.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import threading
import time
from collections.abc import Callable

log = logging.getLogger(__name__)


class Timers:
    """Makes calls when their time has come. They must not wait."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._serial = itertools.count()  # the order of calls of the same time
        self._calls: list[tuple[int, int, Callable[[], None]]] = []
        threading.Thread(target=self._run, name="timers", daemon=True).start()

    def later(self, delay: int, call: Callable[[], None]) -> None:
        """Call a function once, `delay` ns from now."""
        with self._changed:
            due = time.monotonic_ns() + delay
            heapq.heappush(self._calls, (due, next(self._serial), call))
            self._changed.notify()

    def _run(self) -> None:
        while True:
            call = self._next()
            try:
                call()
            except Exception:
                log.exception("a call of a timer failed")

    def _next(self) -> Callable[[], None]:
        """Wait until a call is due and take it."""
        with self._changed:
            while not self._calls or self._calls[0][0] > time.monotonic_ns():
                wait = self._calls[0][0] - time.monotonic_ns() if self._calls else None
                self._changed.wait(None if wait is None else max(wait, 0) / 1e9)
            return heapq.heappop(self._calls)[2]
