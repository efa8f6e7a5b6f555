"""What commands share that work on a store until they are told to end.

Used by `pvdump watches run` and `pvdump blkback`. The rule: such a command ends by SIGINT, by
SIGTERM or with its store, and undoes what it began before it does.
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from ..xenstore.store import Store
from ..xenstore.stream import default_path


def add_store(parser: argparse.ArgumentParser) -> None:
    """Add the option that names the store."""
    parser.add_argument(
        "--store",
        type=Path,
        help="unix socket or device of xenstored (default: $XENSTORED_PATH, else "
        "/run/xenstored/socket, else /dev/xen/xenbus)",
    )


def serve(
    command: str, path: Path | None, begin: Callable[[Store, contextlib.ExitStack], None]
) -> int:
    """Call begin(store, stack), wait for the end, close the stack. Returns the exit code.

    command: for the message that the store has ended; path: of the store, see add_store().
    """
    ended: list[str] = []
    end = threading.Event()

    def on_end(reason: str) -> None:
        ended.append(reason)
        end.set()

    before = {
        number: signal.signal(number, lambda *_: end.set())
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        with contextlib.ExitStack() as stack:
            store = stack.enter_context(Store(path or default_path(), on_end))
            begin(store, stack)
            end.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if ended:
        print(f"pvdump {command}: the store ended: {ended[0]}", file=sys.stderr)
        return 1
    return 0
