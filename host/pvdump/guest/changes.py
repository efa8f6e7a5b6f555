"""Makes the changes of setup one by one, with a record of them, and takes them back.

Used by setup.py and remove.py. The record is /var/lib/pvdump/setup.json. The rules: the entry of a
change is on the disk before the change is made, and goes when it was undone; so wherever the
program ends, remove can undo what was done. They are undone in reverse order.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Callable, Optional, Protocol

from pvfw.errors import DumpError

from ..streams import pasted
from . import record, steps, unmake
from .steps import Entry

RECORD = record.STATE / "setup.json"  # below the root
UNDO: dict[str, Callable[[Entry], str]] = {
    "file": steps.undo_file,
    "folder": steps.undo_folder,
    "sysctl": steps.undo_sysctl,
    "program": steps.undo_program,
    "boots": steps.undo_boots,
    "target-file": unmake.file,
    "target-device": unmake.device,
    "target-swap": unmake.swap_space,
}
# What an entry has besides its kind and key, by kind.
FIELDS: dict[str, dict[str, tuple[type, ...]]] = {
    "file": {"before": (str, type(None)), "after": (str,)},
    "sysctl": {"before": (str,), "after": (str,)},
    "program": {"words": (list,)},
}
Say = Callable[[str], object]


class Step(Protocol):
    """A change: see steps.py."""

    def needed(self) -> bool:
        """Tell whether anything would change."""

    def name(self) -> str:
        """Return what it does, one line; "" where that need not be said."""

    def describe(self) -> str:
        """Return what it does with all details, for a person who is to agree."""

    def entry(self, known: Optional[Entry]) -> Optional[Entry]:
        """Return its entry in the record, None where there is nothing to undo."""

    def do(self) -> None:
        """Make the change. Raises DumpError."""


def apply(wanted: Sequence[Step], root: Path, say: Say) -> None:
    """Make changes, and keep the record.

    Args:
        wanted: in their order.
        root: of the record.
        say: is told each change before it is made.

    Raises:
        DumpError: a change failed; those before it are in the record.
    """
    path = root / RECORD
    entries = load(path)
    for step in wanted:
        if not step.needed():
            continue
        _note(path, entries, step)
        if line := step.name():
            say(line)
        step.do()


def _note(path: Path, entries: list[Entry], step: Step) -> None:
    """Put the entry of a change into the record."""
    made = step.entry(None)
    if made is None:
        return
    place = next((i for i, one in enumerate(entries) if _same(one, made)), None)
    if place is None:
        entries.append(made)
    else:
        entries[place] = step.entry(entries[place]) or made
    _save(path, entries)


def revert(root: Path, say: Say) -> bool:
    """Take all changes of the record back.

    Args:
        root: of the record.
        say: is told what stays, and what failed.

    Returns:
        whether all was done; what failed stays in the record.

    Raises:
        DumpError: the record cannot be read or written.
    """
    path = root / RECORD
    entries = load(path)
    kept: list[Entry] = []
    while entries:
        entry = entries.pop()
        try:
            if line := UNDO[entry["kind"]](entry):
                say(line)
        except (DumpError, OSError) as error:
            say(f"{entry['key']}: {error}")
            kept.insert(0, entry)
        if entries or kept:
            _save(path, [*entries, *kept])
    if kept:
        return False
    path.unlink(missing_ok=True)
    with suppress(OSError):
        path.parent.rmdir()
    return True


def load(path: Path) -> list[Entry]:
    """Read the record.

    Raises:
        DumpError: it cannot be read, or is damaged.
    """
    entries = record.load(path).get("changes", [])
    if not isinstance(entries, list) or not all(_is_entry(each) for each in entries):
        raise record.RecordError(f"{path} is damaged: rm {pasted(path)}")
    return entries


def _is_entry(value: Any) -> bool:
    if not isinstance(value, dict) or not isinstance(value.get("key"), str):
        return False
    kind = value.get("kind")
    return kind in UNDO and all(
        name in value and isinstance(value[name], types)
        for name, types in FIELDS.get(kind, {}).items()
    )


def _save(path: Path, entries: Sequence[Entry]) -> None:
    record.save(path, {"changes": list(entries)})


def _same(one: Entry, other: Entry) -> bool:
    return (one["kind"], one["key"]) == (other["kind"], other["key"])
