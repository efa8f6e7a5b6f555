"""The loop of a host program: file descriptors instead of event channels.

Made by store.Store and by whoever runs the drivers' async code outside a guest. The rule: all of it
belongs to the thread that calls run(), but for call(), through which any thread has something done
there.
"""

from __future__ import annotations

import os
import selectors
import time
from collections import deque
from collections.abc import Callable

from xenpv.loop import SECOND, Loop, Signal


class SelectLoop(Loop):
    """Its clock is CLOCK_MONOTONIC."""

    def __init__(self) -> None:
        super().__init__(time.monotonic_ns)  # type: ignore[no-untyped-call]
        self._selector = selectors.DefaultSelector()
        self._calls: deque[Callable[[], object]] = deque()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._selector.register(self._wake, selectors.EVENT_READ, None)

    def fd(self, fd: int) -> Signal:
        """The signal of a file descriptor: set when it can be read, or written where wanted."""
        signal = Signal()
        self._selector.register(fd, selectors.EVENT_READ, signal)
        return signal

    def want_write(self, fd: int, wanted: bool) -> None:
        """Whether a descriptor's signal is also set when it can be written."""
        key = self._selector.get_key(fd)
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if wanted else 0)
        if key.events != events:
            self._selector.modify(fd, events, key.data)

    def forget(self, fd: int) -> None:
        """The descriptor is about to be closed."""
        self._selector.unregister(fd)

    def call(self, function: Callable[[], object]) -> None:
        """Have the loop's thread call a function, soon. For any thread."""
        self._calls.append(function)
        os.eventfd_write(self._wake, 1)

    def close(self) -> None:
        """Give the loop's own descriptors back; it does not run any more."""
        self._selector.close()
        os.close(self._wake)

    def _turn(self) -> None:
        while self._calls:
            self._calls.popleft()()

    def _block(self, until: int | None) -> None:
        timeout = None if until is None else max(0, until - self.now()) / SECOND
        for key, _ in self._selector.select(timeout):
            if key.data is None:
                os.eventfd_read(self._wake)
            else:
                key.data.set()
