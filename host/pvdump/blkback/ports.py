"""The interfaces through which the backend uses Xen and xenstore.

dom0.py implements them on a real Xen, pvxen/blkback.py on the embedded one. The rule: a call that
cannot succeed now but may later raises Stalled and has changed nothing; one that never can succeed
raises Refused.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from .transfer import Queue


class Stalled(Exception):
    """Something is short at the moment, memory or the disk for example: try again later."""


class Refused(Exception):
    """Xen refuses a grant or an event channel of the guest; the message says which."""


class Wait(enum.Enum):
    """The reason why a worker waits before its next step."""

    NOTHING = "nothing"
    EVENT = "an event"
    IO = "an event, or I/O that ends"
    LATER = "memory or the disk"
    END = "the end"


class MappedFrames(Protocol):
    """Frames of a guest that are mapped, in the order of their grants."""

    def slices(self, start: int, end: int) -> list[memoryview]:
        """Return the bytes from start to end, in as few pieces as they lie in."""

    def unmap(self) -> None:
        """Unmap the frames."""


class Grants(Protocol):
    """One guest's grants."""

    def map(self, refs: Sequence[int], writable: bool) -> MappedFrames:
        """Map all of the grants or none. Raises Refused, Stalled."""

    def close(self) -> None:
        """Give back what mapping needs; no frame may be mapped any more."""


class Channel(Protocol):
    """Our end of an event channel."""

    def notify(self) -> None:
        """Send the guest an event."""

    def close(self) -> None:
        """Unbind the channel."""


class Worker(Protocol):
    """A worker, as Xen.run() drives it.

    wake: set by run(); any thread may call it.
    """

    name: str
    wake: Callable[[], None]

    def step(self) -> Wait:
        """Do at most one ring's worth of work. Returns what the next step waits for."""

    def fail(self, why: str) -> None:
        """End the connection at the next step, for a reason."""


class Xen(Protocol):
    """Xen as the backend uses it."""

    def grants(self, domid: int) -> Grants:
        """Return a guest's grants. Raises Refused, Stalled."""

    def bind(self, domid: int, port: int) -> Channel:
        """Bind a guest's event channel. Raises Refused, Stalled."""

    def queue(self, direct: int, channel: Any) -> Queue:
        """Make a queue of I/O for a sink's `direct` descriptor.

        channel: one from bind(); its worker is woken when I/O has ended. Raises Stalled.
        """

    def run(self, worker: Worker, channel: Any) -> None:
        """Give a worker its turns until it waits for the end. Raises Stalled.

        channel: one from bind(), whose events wake the worker.
        """

    def later(self, delay: int, call: Callable[[], None]) -> None:
        """Call a function once, `delay` ns from now, from any thread."""


class BackendStore(Protocol):
    """Xenstore as a device uses it. Values are text; bytes that are no UTF-8 are surrogates."""

    def read(self, path: str) -> str | None:
        """Return a node's value, or None if there is no such node."""

    def update(self, device: str, values: Mapping[str, str]) -> bool:
        """Write all nodes at once, or none if the device's `frontend` node is gone.

        Args:
            device: the path of the backend's nodes of a device.
            values: by the whole path of each node.

        Returns: whether the device was there.
        """

    def remove(self, path: str) -> None:
        """Remove a node and all below it, if it is there."""
