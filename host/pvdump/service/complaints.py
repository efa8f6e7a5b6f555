"""Lines about handlers that fail, at most one a second for each domain.

Used by the dispatcher and by backends. The rule: a guest that makes its handler fail a thousand
times a second does not fill the log; the next line says how many were left out. Of more than KEPT
domains the one that had its line longest ago is forgotten.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable

EVERY = 1_000_000_000  # ns
KEPT = 4096


class Complaints:
    """Writes lines, or counts them, for any number of threads.

    Args:
        clock: gives the time, ns.
        write: takes a line.
    """

    def __init__(self, clock: Callable[[], int], write: Callable[[str], object]) -> None:
        self._clock = clock
        self._write = write
        self._lock = threading.Lock()
        # When each had its last line, the oldest first, and how many were left out since.
        self._last: dict[Hashable, tuple[int, int]] = {}

    def add(self, whose: Hashable, text: str) -> None:
        """Write a line about `whose`, unless it had one within the last second."""
        now = self._clock()
        with self._lock:
            when, left_out = self._last.get(whose, (now - EVERY, 0))
            if now - when < EVERY:
                self._last[whose] = when, left_out + 1
                return
            self._last.pop(whose, None)
            self._last[whose] = now, 0
            if len(self._last) > KEPT:
                del self._last[next(iter(self._last))]
        self._write(f"{text} ({left_out} more were left out)" if left_out else text)
