"""What is wrong with the handlers, at most once a second for each domain.

Used by the dispatcher. The rule: a guest that makes its handler fail a thousand times a second
fills no log; the next line says how many were left out.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable

EVERY = 1_000_000_000  # ns


class Complaints:
    """clock: ns; write: takes a line."""

    def __init__(self, clock: Callable[[], int], write: Callable[[str], object]) -> None:
        self._clock = clock
        self._write = write
        self._lock = threading.Lock()
        self._written: dict[Hashable, int] = {}  # when
        self._left_out: dict[Hashable, int] = {}

    def add(self, whose: Hashable, text: str) -> None:
        now = self._clock()
        with self._lock:
            if whose in self._written and now - self._written[whose] < EVERY:
                self._left_out[whose] = self._left_out.get(whose, 0) + 1
                return
            self._written[whose] = now
            left_out = self._left_out.pop(whose, 0)
        self._write(f"{text} ({left_out} more were left out)" if left_out else text)

    def forget(self, whose: Hashable) -> None:
        """There will be no more of it."""
        with self._lock:
            self._written.pop(whose, None)
            self._left_out.pop(whose, None)
