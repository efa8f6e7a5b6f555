"""How the disks stand: a row for each, as JSON and as text.

Made by the host, served by the status socket, printed by `pvdump blkback show`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from xenpv.text import printable
from xenpv.xenbus import state_name

from .counts import Counts
from .device import Device

MIB = 1 << 20


@dataclass(kw_only=True)
class Row(Counts):
    """A disk. state: of xenbus; worker: its state or None; error: what went wrong last."""

    disk: str
    state: int
    worker: str | None
    error: str


@dataclass(frozen=True)
class Status:
    disks: list[Row]

    def json(self) -> dict[str, Any]:
        return asdict(self)


def row(device: Device) -> Row:
    instance = device.instance
    return Row(
        disk=device.name,
        state=device.state,
        worker=instance.state.value if instance else None,
        error=device.fatal,
        **asdict(device.counts),
    )


def text(status: Status) -> str:
    """A line for each disk, for a person."""
    return "\n".join(
        printable(
            f"{disk.disk:<12} {state_name(disk.state):<13} {disk.worker or '-':<13} "
            f"read {disk.read // MIB} MiB, written {disk.written // MIB} MiB, "
            f"{disk.errors} errors {disk.error}".rstrip().encode(errors="replace")
        )
        for disk in status.disks
    )
