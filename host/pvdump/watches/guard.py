"""Ends the process groups of commands when the process that started them ends.

run.py calls end_groups() at its own end, and runs this file as a program beside it, so that the
commands end even if their parent is killed. The program reads lines from standard input, "+N" for a
process group that began and "-N" for one that is over, and ends what is left at the end of the
input. It imports nothing of the package, so that it starts quickly.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterable
from pathlib import Path

GRACE = 5.0  # seconds from SIGTERM to SIGKILL
STEP = 0.05  # seconds between two looks at what is left


def end_groups(groups: Iterable[int], grace: float) -> None:
    """Send SIGTERM to process groups, and SIGKILL to those of which something is left.

    Args:
        groups: process group ids.
        grace: seconds between the two.
    """
    left = set(groups)
    send(left, signal.SIGTERM)
    last = time.monotonic() + grace
    while left and time.monotonic() < last:
        time.sleep(STEP)
        left &= running()
    send(left, signal.SIGKILL)


def send(groups: Iterable[int], number: signal.Signals) -> None:
    """Send a signal to process groups that may be gone."""
    for group in groups:
        # A command may be over, or have taken another user's rights.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, number)


def running() -> set[int]:
    """Return the process groups with a process that is no zombie."""
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it may end meanwhile
            state, _, group = stat.read_bytes().rpartition(b")")[2].split()[:3]
            if state not in b"ZX":
                found.add(int(group))
    return found


def main() -> None:
    """Follow the process groups named on stdin, and end them when it is closed."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    groups: dict[int, None] = {}
    for line in sys.stdin:
        group = int(line[1:])
        if line[0] == "+":
            groups[group] = None
        else:
            groups.pop(group, None)
    end_groups(groups, GRACE)


if __name__ == "__main__":
    main()
