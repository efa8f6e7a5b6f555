"""The loop of a host program: file descriptors instead of event channels.

Made by store.Store and by whoever runs the drivers' async code outside a guest. The rule: all of it
belongs to the thread that calls run(), but for call(), through which any thread has something done
there.
"""

from __future__ import annotations

import os
import select
import time
from collections import deque
from collections.abc import Callable

from xenpv.loop import SECOND, Loop, Signal

MILLISECOND = SECOND // 1000


class SelectLoop(Loop):
    """Its clock is CLOCK_MONOTONIC."""

    def __init__(self) -> None:
        super().__init__(time.monotonic_ns)  # type: ignore[no-untyped-call]
        self._descriptors: dict[int, tuple[Signal, int]] = {}
        self._calls: deque[Callable[[], object]] = deque()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def fd(self, fd: int) -> Signal:
        """The signal of a file descriptor: set when it can be read, or written where wanted."""
        signal = Signal()
        self._descriptors[fd] = (signal, select.POLLIN)
        return signal

    def want_write(self, fd: int, wanted: bool) -> None:
        """Whether a descriptor's signal is also set when it can be written."""
        signal, _ = self._descriptors[fd]
        self._descriptors[fd] = (signal, select.POLLIN | (select.POLLOUT if wanted else 0))

    def forget(self, fd: int) -> None:
        """The descriptor is about to be closed."""
        del self._descriptors[fd]

    def call(self, function: Callable[[], object]) -> None:
        """Have the loop's thread call a function, soon. For any thread."""
        self._calls.append(function)
        os.eventfd_write(self._wake, 1)

    def close(self) -> None:
        """Give the loop's own descriptor back; it does not run any more."""
        os.close(self._wake)

    def _turn(self) -> None:
        while self._calls:
            self._calls.popleft()()

    def _block(self, until: int | None) -> None:
        poll = select.poll()
        poll.register(self._wake, select.POLLIN)
        for fd, (signal, events) in self._descriptors.items():
            # One that nobody takes anything from would be ready for ever.
            if signal.waited_for():
                poll.register(fd, events)
        # In ms, rounded up: not to come back before the deadline again and again.
        timeout = None if until is None else max(0, -((self.now() - until) // MILLISECOND))
        for fd, _ in poll.poll(timeout):
            if fd == self._wake:
                os.eventfd_read(self._wake)
            else:
                self._descriptors[fd][0].set()
