"""How the guests of a dom0 stand: a row for each, as JSON and as a table.

Made by the daemon, served by watches/server.py, printed by `pvdump top`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Row:
    """A guest.

    Attributes:
        domid, uuid, name, type: as libxl has them.
        down: it is down for a soft reset.
        last: the last event of it; "" if there was none.
    """

    domid: int
    uuid: str
    name: str
    type: str
    down: bool
    last: str


@dataclass(frozen=True)
class Status:
    """All guests."""

    guests: list[Row]

    def json(self) -> dict[str, Any]:
        """Return the status as JSON's types."""
        return asdict(self)
