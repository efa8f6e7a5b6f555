"""The signals that end a command in the foreground, as bytes in a descriptor.

Used by foreground.py and by `pvdump xenstored`. The rule: a Python signal handler runs in the main
thread only, and the main thread may sleep when the kernel hands the signal to another thread, or
just before it sleeps. A byte in a descriptor that it waits for wakes it in each case.
Source: Python's signal.set_wakeup_fd().
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextlib.contextmanager
def signals_into(fd: int) -> Iterator[None]:
    """Have each of SIGNALS write a byte within the block, and do nothing else.

    Args:
        fd: a descriptor to write to, which does not block.
    """
    handlers = {number: signal.signal(number, lambda *_: None) for number in SIGNALS}
    before = signal.set_wakeup_fd(fd, warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        for number, handler in handlers.items():
            signal.signal(number, handler)
