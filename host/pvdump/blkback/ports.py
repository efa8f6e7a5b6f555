"""What the backend wants of Xen and of xenstore, and no more.

Given by embedded.py and dom0.py. The rule: a call that cannot do now what it could do later raises
Stalled and has changed nothing; one that never can raises Refused.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from .transfer import Queue

REST = 100_000_000  # ns


class Stalled(Exception):
    """Memory, or the disk below, is not to be had at the moment."""


class Refused(Exception):
    """Xen refuses what the guest's grant or port does not allow; the message says which."""


class Wait(enum.Enum):
    """What a worker waits for before its next turn."""

    NOTHING = "nothing"
    EVENT = "an event"
    IO = "an event, or I/O that ends"
    LATER = "memory or the disk"
    END = "the end"


class Frames(Protocol):
    """Frames of a guest, mapped one behind the other."""

    def slices(self, start: int, end: int) -> list[memoryview]:
        """The bytes from start to end, in as few pieces as they lie in."""

    def unmap(self) -> None: ...


class Grants(Protocol):
    """The use of one guest's grants."""

    def map(self, refs: Sequence[int], writable: bool) -> Frames:
        """All or none. Raises Refused, Stalled."""

    def close(self) -> None: ...


class Channel(Protocol):
    """Our end of an event channel."""

    def notify(self) -> None: ...

    def close(self) -> None: ...


class Worker(Protocol):
    """step() does a ring's worth. wake is set by whoever gives it its turns."""

    name: str
    wake: Callable[[], None]

    def step(self) -> Wait: ...

    def fail(self, why: str) -> None: ...


class Xen(Protocol):
    def grants(self, domid: int) -> Grants: ...

    def bind(self, domid: int, port: int) -> Channel:
        """Raises Refused."""

    def queue(self, direct: int, channel: Any) -> Queue:
        """For a sink that has `direct`; it wakes who waits for the channel. Raises Stalled."""

    def run(self, worker: Worker, channel: Any) -> None:
        """Give a worker its turns, from now until it waits for the end.

        channel: one that bind() gave.
        """

    def later(self, call: Callable[[], None]) -> None:
        """Call it once, REST from now, from any thread."""


class Nodes(Protocol):
    """Xenstore. Values are text."""

    def read(self, path: str) -> str | None: ...

    def write(self, path: str, value: str) -> None: ...

    def remove(self, path: str) -> None: ...

    def update(self, path: str, values: Mapping[str, str]) -> bool:
        """Write nodes below a path, unless its `frontend` is gone: all at once.

        Returns whether it was there.
        """
