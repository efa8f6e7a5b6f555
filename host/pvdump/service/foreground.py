"""A command that works on a store in the foreground until it is told to end.

Used by `pvdump watches run` and `pvdump blkback run`. The rule: such a command ends by SIGINT, by
SIGTERM or with its store, and undoes what it began before it does; what it logs is a line a record,
whatever names from guests are in it.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import select
from collections.abc import Callable
from pathlib import Path

from ..arguments import file_name
from ..streams import complain, one_line
from ..xenstore.store import Store
from ..xenstore.stream import default_path
from .signals import signals_into


def add_store(parser: argparse.ArgumentParser) -> None:
    """Add the option that names the store."""
    parser.add_argument(
        "--store",
        type=file_name,
        help="unix socket or device of xenstored (default: $XENSTORED_PATH, else "
        "/run/xenstored/socket, else /dev/xen/xenbus)",
    )


def serve(
    command: str, path: Path | None, begin: Callable[[Store, contextlib.ExitStack], None]
) -> int:
    """Serve until a signal or the end of the store.

    Args:
        command: its name, for messages.
        path: of the store, see add_store().
        begin: called with the store and a stack; what it puts there is undone at the end.

    Returns:
        the exit code.
    """
    _log(command)
    ended: list[str] = []
    with contextlib.ExitStack() as stack:
        end = _End()
        stack.callback(end.close)
        stack.enter_context(signals_into(end.fd))

        def on_end(reason: str) -> None:
            ended.append(reason)
            end.set()

        store = stack.enter_context(Store(path or default_path(), on_end))
        begin(store, stack)
        end.wait()
    if ended:
        complain(command, f"the store ended: {ended[0]}")
        return 1
    return 0


class _OneLine(logging.Formatter):
    """Formats a record as one line; a traceback follows in lines of its own."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        return one_line(super().formatMessage(record))


def _log(command: str) -> None:
    """Send the log to standard error."""
    handler = logging.StreamHandler()
    handler.setFormatter(_OneLine(f"pvdump {command}: %(message)s"))
    logging.basicConfig(handlers=[handler])


class _End:
    """An event that threads set, and signals: see signals.py."""

    def __init__(self) -> None:
        self._read, self.fd = os.pipe()
        os.set_blocking(self.fd, False)

    def set(self) -> None:
        """Set the event, from any thread."""
        with contextlib.suppress(BlockingIOError):  # then there is a byte already
            os.write(self.fd, b"\0")

    def wait(self) -> None:
        """Block until the event is set."""
        select.select([self._read], [], [])

    def close(self) -> None:
        """Forget the event."""
        os.close(self._read)
        os.close(self.fd)
