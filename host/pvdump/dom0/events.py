"""What happened to guests, a line of JSON each, in a file that has a bound.

Written by the daemon, read by `pvdump events`. The rule: names are from guests' configurations, so
they are printed with control characters as escapes.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

NAME = "events.jsonl"
SIZE_MAX = 1 << 20  # bytes; then the file is put aside, and the one that was aside is removed


class Events:
    """The file, for any number of threads.

    Args:
        folder: its folder, which is there.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / NAME
        self._lock = threading.Lock()

    def add(self, event: str, domid: int, guest: str, **more: Any) -> dict[str, Any]:
        """Write an event down. Returns it. Raises OSError.

        Args:
            event: what happened, a word.
            domid, guest: to which domain, and its name.
            more: what else is to be told.
        """
        time = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
        made = {"time": time, "event": event, "domid": domid, "guest": guest, **more}
        line = (json.dumps(made) + "\n").encode()
        with self._lock:
            fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
            try:
                os.write(fd, line)
                size = os.fstat(fd).st_size
            finally:
                os.close(fd)
            if size > SIZE_MAX:
                self._path.replace(aside(self._path))
        return made


def aside(path: Path) -> Path:
    """Return where a file of events is put when it is full."""
    return path.with_name(f"{path.name}.1")


def read(folder: Path) -> Iterator[dict[str, Any]]:
    """Give the events of a folder, the oldest first. A line that was cut off is left out."""
    for path in (aside(folder / NAME), folder / NAME):
        try:
            lines = path.read_bytes().splitlines()
        except FileNotFoundError:
            continue
        for line in lines:
            try:
                event = json.loads(line)
            except ValueError:
                continue
            if isinstance(event, dict):
                yield event


def text(event: dict[str, Any]) -> str:
    """Return an event as a line for a person."""
    rest = {key: value for key, value in event.items() if key not in ("time", "event", "guest")}
    words = " ".join(f"{key}={value}" for key, value in rest.items())
    return f"{event.get('time')}  {event.get('event')}  {event.get('guest')}  {words}"
