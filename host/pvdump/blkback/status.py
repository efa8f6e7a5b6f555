"""The state of all disks: a row for each, as JSON and as text.

The host makes it, the status socket serves it, `pvdump blkback show` prints it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from xenpv.text import printable
from xenpv.xenbus import state_name

from .counts import Counts
from .device import Device

MIB = 1 << 20


@dataclass
class Row(Counts):
    """A disk. state: of xenbus; worker: its state, "" for none; error: what went wrong last."""

    disk: str = ""
    state: int = 0
    worker: str = ""
    error: str = ""


@dataclass(frozen=True)
class Status:
    """All disks."""

    disks: list[Row]

    def json(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return asdict(self)


def row(device: Device) -> Row:
    """Return how a device stands."""
    instance = device.instance
    return Row(
        disk=device.name,
        state=device.state,
        worker=instance.state.value if instance else "",
        error=device.fatal,
        **asdict(device.counts),
    )


def text(status: Status) -> str:
    """Return a line for each disk, for a person."""
    return "\n".join(
        printable(
            f"{disk.disk:<12} {state_name(disk.state):<13} {disk.worker or '-':<13} "
            f"read {disk.read // MIB} MiB, written {disk.written // MIB} MiB, "
            f"{disk.errors} errors {disk.error}".rstrip().encode(errors="replace")
        )
        for disk in status.disks
    )
