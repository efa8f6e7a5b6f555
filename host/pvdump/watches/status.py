"""The state of the dispatcher's queues: a row for each, as JSON and as a table.

Made by the dispatcher, served by server.py, printed by `pvdump watches show`. The rule: the texts
may come from a guest or from a foreign socket, so only printable characters are printed.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Optional

from xenpv.text import printable

from .queue import DomainIdentity, Queue

NS = 1_000_000_000


@dataclass(frozen=True)
class Row:
    """The state of one queue.

    Args:
        queue: "domain"; "no domain" for events of none; "domains" for the look at which there are.
        domid, generation: of the domain, else None.
        gone: the domain is gone, but its last handler is still running.
        queued, handled, dropped, failed: numbers of events.
        oldest: seconds that the first queued event has waited, None if none is queued.
        handler, path, running_for: name of the running handler, path of its event, and seconds
            since it began; None if none is running.
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
        """Return the key by which rows are sorted: no domain first, then by domid."""
        return (-1, 0) if self.domid is None else (self.domid, self.generation or 0)


@dataclass(frozen=True)
class Status:
    """The state of a dispatcher.

    Args:
        rows: its queues.
        workers, idle: its threads, and those of them without work.
        refused: how often the system refused a thread.
    """

    rows: list[Row]
    workers: int
    idle: int
    refused: int

    def json(self) -> dict[str, Any]:
        """Return the status as JSON's types."""
        return asdict(self)


def row(queue: Queue, now: int) -> Row:
    """Make the row of a queue. now: ns of the dispatcher's clock."""
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
    """Make the table that `pvdump watches show` prints."""
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
            for cell, width, name in zip(line, widths, HEADINGS)
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
