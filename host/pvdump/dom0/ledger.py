"""Which guests pvdumpd has reset, and how far it is with each: a file a guest, in /run.

Kept by verbs.py. The rules: a record is written before the step that it tells of, whole or not at
all, so that a process that was killed at any moment finds what it had begun. Domains do not outlive
dom0, and /run does not either.
"""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Optional

from ..service import records

RESETTING = "resetting"  # the domain is down or paused; its crash kernel does not run yet
RUNNING = "running"  # its crash kernel runs, or has ended
ENDING = "ending"  # `action` is being done
ENDED = "ended"  # it is done, or could not be; the daemon has to tell of it yet


@dataclass(frozen=True)
class Record:
    """How far a guest is.

    Attributes:
        domid, uuid, name: the guest's.
        phase: one of those above.
        reason: SHUTDOWN_*, with which the crash kernel ended.
        action: what is being done, in the words of xl.cfg.
        by: who has done it, "pvdumpd" or "xl".
        why: it could not be done; "" if it was.
    """

    domid: int
    uuid: str
    name: str
    phase: str
    reason: Optional[int] = None
    action: str = ""
    by: str = ""
    why: str = ""


class Ledger:
    """The records in a folder, which is made, and is its owner's alone."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def path(self, uuid: str, ending: str) -> Path:
        """Return the path of a file of a guest's in the folder."""
        return self._folder / f"{uuid}{ending}"

    def find(self, uuid: str) -> Record | None:
        """Return the record of a guest, if there is one."""
        try:
            return records.build(Record, json.loads(self.path(uuid, ".json").read_bytes()))
        except (FileNotFoundError, ValueError):
            return None

    def all(self) -> list[Record]:
        """Return all records."""
        found = (self.find(path.stem) for path in sorted(self._folder.glob("*.json")))
        return [record for record in found if record]

    def put(self, record: Record) -> Record:
        """Write a record in the place of the guest's earlier one. Returns it."""
        path = self.path(record.uuid, ".json")
        part = path.with_suffix(".part")
        part.write_text(json.dumps(asdict(record)), encoding="utf-8")
        os.replace(part, path)  # noqa: PTH105
        return record

    def remove(self, uuid: str) -> None:
        """Forget a guest."""
        with contextlib.suppress(FileNotFoundError):
            self.path(uuid, ".json").unlink()
