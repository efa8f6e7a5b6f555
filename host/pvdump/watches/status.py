"""How the dispatcher's queues stand: a row for each, as JSON and as a table.

Made by the dispatcher, served by server.py, printed by `pvdump watches show`. The rule: what is
printed may come from a guest or from a stranger's socket, so nothing but printable text goes out.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Optional

from xenpv.text import printable

from .queue import DomainIdentity, Queue

NS = 1_000_000_000


@dataclass(frozen=True)
class Row:
    """A queue.

    queue: "domain", or "no domain" (events of none), or "domains" (which domains there are).
    gone: the domain is not there any more, but its last handler is still running.
    queued, handled, dropped, failed: events; oldest, running_for: seconds; handler: the running
    handler's name, path: of the event that it handles. None where there is nothing.
    """

    queue: str
    domid: Optional[int]
    generation: Optional[int]
    gone: bool
    queued: int
    oldest: Optional[float]
    handler: Optional[str]
    path: Optional[str]
    running_for: Optional[float]
    handled: int
    dropped: int
    failed: int

    def order(self) -> tuple[int, int]:
        return (-1, 0) if self.domid is None else (self.domid, self.generation or 0)


@dataclass(frozen=True)
class Status:
    """workers: threads; idle: those without work; refused: threads that the system did not give."""

    rows: list[Row]
    workers: int
    idle: int
    refused: int

    def json(self) -> dict[str, Any]:
        return asdict(self)


def row(queue: Queue, now: int) -> Row:
    """A queue's row; now: ns of the dispatcher's clock."""
    domain = queue.domain if isinstance(queue.domain, DomainIdentity) else None
    oldest, running = queue.oldest(), queue.running
    return Row(
        queue="domain" if domain else str(queue.domain),
        domid=domain.domid if domain else None,
        generation=domain.generation if domain else None,
        gone=queue.gone,
        queued=queue.waiting(),
        oldest=(now - oldest.since) / NS if oldest else None,
        handler=running.subscription.name if running else None,
        path=running.path if running else None,
        running_for=(now - queue.running_since) / NS if running else None,
        handled=queue.handled,
        dropped=queue.dropped,
        failed=queue.failed,
    )


HEADINGS = "domain queued oldest handled dropped failed running for path".split()
LEFT = {"domain", "running", "path"}


def text(status: Status) -> str:
    """The table for a person."""
    lines = [
        HEADINGS,
        *(
            [printable(cell.encode(errors="replace")) for cell in _cells(row)]
            for row in status.rows
        ),
    ]
    widths = [max(len(line[i]) for line in lines) for i in range(len(HEADINGS))]
    table = [
        "  ".join(
            cell.ljust(width) if name in LEFT else cell.rjust(width)
            for cell, width, name in zip(line, widths, HEADINGS, strict=True)
        ).rstrip()
        for line in lines
    ]
    counts = f"{status.workers} workers, {status.idle} idle"
    if status.refused:
        counts += f", {status.refused} times the system refused one"
    return "\n".join([*table, counts])


def _cells(row: Row) -> list[str]:
    name = row.queue if row.domid is None else str(row.domid)
    return [
        f"{name} (gone)" if row.gone else name,
        str(row.queued),
        _seconds(row.oldest),
        str(row.handled),
        str(row.dropped),
        str(row.failed),
        row.handler or "-",
        _seconds(row.running_for),
        row.path or "-",
    ]


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}s"
