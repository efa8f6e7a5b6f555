"""The progress of long work on a disk, on one line of standard error if that is a terminal.

Used by prepare and collect, which take any object with expect() and advance().
"""

from __future__ import annotations

import sys
import time
from contextlib import suppress
from typing import Protocol

from pvfw.superblock import MIB

EVERY = 0.2  # seconds between two lines on a terminal
WIDTH = 20  # characters of the bar


class Progress(Protocol):
    """Takes the progress of work."""

    def expect(self, total: float) -> None:
        """Take the number of bytes that the work has."""

    def advance(self, amount: float) -> None:
        """Take the number of bytes that the last step has done."""


class _Silent:
    """Progress that nobody looks at."""

    def expect(self, total: float) -> None:
        """Take the total."""

    def advance(self, amount: float) -> None:
        """Take a step."""


SILENT = _Silent()


class Meter:
    """A bar, MiB, MiB/s and seconds on one line, removed when the block ends.

    with Meter() as meter:
        collect(path, out, meter)
    print(meter)
    """

    def __init__(self) -> None:
        self.total = 0.0
        self.done = 0.0
        self.started = self.shown = time.monotonic()
        self.ended = 0.0
        self.visible = sys.stderr.isatty()

    def expect(self, total: float) -> None:
        """Take the number of bytes that the work has."""
        self.total = total

    def advance(self, amount: float) -> None:
        """Take the number of bytes that the last step has done."""
        self.done += amount
        now = time.monotonic()
        if self.visible and now - self.shown > EVERY:
            self.shown = now
            self._show(f"[{self._bar()}] {self}")

    def __enter__(self) -> Meter:
        return self

    def __exit__(self, *exception: object) -> None:
        self.ended = time.monotonic()
        if self.visible:
            self._show("")

    def _bar(self) -> str:
        part = min(self.done / self.total, 1) if self.total else 0
        return ("#" * int(part * WIDTH)).ljust(WIDTH)

    def _show(self, line: str) -> None:
        """Put a line in place of the one before; a terminal that has gone does not matter."""
        with suppress(OSError):
            print(f"\r\033[K{line}", end="", file=sys.stderr, flush=True)

    def __str__(self) -> str:
        seconds = max((self.ended or time.monotonic()) - self.started, 1e-3)
        done, total = self.done / MIB, self.total / MIB
        return f"{done:.1f}/{total:.1f} MiB  {done / seconds:.1f} MiB/s  {seconds:.1f} s"
