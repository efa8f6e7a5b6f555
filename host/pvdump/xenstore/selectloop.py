"""The loop of a host program, on file descriptors instead of event channels.

Made by store.Store and by programs that run the drivers' async code outside a guest. The rule: only
the thread that calls run() may use it, except for call(), by which any thread has a function called
there.
"""

from __future__ import annotations

import contextlib
import os
import select
import time
from collections import deque
from collections.abc import Callable

from xenpv.loop import SECOND, Loop, Signal

MILLISECOND = SECOND // 1000
PIPE = 1 << 16  # bytes that a pipe holds


class SelectLoop(Loop):
    """A loop whose clock is CLOCK_MONOTONIC."""

    def __init__(self) -> None:
        super().__init__(time.monotonic_ns)  # type: ignore[no-untyped-call]
        self._descriptors: dict[int, tuple[Signal, int]] = {}
        self._calls: deque[Callable[[], object]] = deque()
        self._woken, self._wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def fd(self, fd: int) -> Signal:
        """Add a descriptor. Returns its signal, set when it can be read, or written if wanted."""
        signal = Signal()
        self._descriptors[fd] = (signal, select.POLLIN)
        return signal

    def want_write(self, fd: int, wanted: bool) -> None:
        """Choose whether a descriptor's signal is also set when it can be written."""
        signal, _ = self._descriptors[fd]
        self._descriptors[fd] = (signal, select.POLLIN | (select.POLLOUT if wanted else 0))

    def forget(self, fd: int) -> None:
        """Remove a descriptor, before it is closed."""
        del self._descriptors[fd]

    def call(self, function: Callable[[], object]) -> None:
        """Have the loop's thread call a function soon; any thread may ask."""
        self._calls.append(function)
        with contextlib.suppress(BlockingIOError):  # there are enough bytes in the pipe
            os.write(self._wake, b"\0")

    def close(self) -> None:
        """Close the loop's own descriptors; it does not run any more."""
        os.close(self._wake)
        os.close(self._woken)

    def _turn(self) -> None:
        while self._calls:
            self._calls.popleft()()

    def _block(self, until: int | None) -> None:
        poll = select.poll()
        poll.register(self._woken, select.POLLIN)
        for fd, (signal, events) in self._descriptors.items():
            # A descriptor that nobody reads would stay ready and keep the loop busy.
            if signal.waited_for():
                poll.register(fd, events)
        # In ms, rounded up, so that the loop does not spin shortly before the deadline.
        timeout = None if until is None else max(0, -((self.now() - until) // MILLISECOND))
        for fd, _ in poll.poll(timeout):
            if fd == self._woken:
                os.read(self._woken, PIPE)
            else:
                self._descriptors[fd][0].set()
