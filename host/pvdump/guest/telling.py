"""What is said of each dump that is collected in a guest: on a terminal, or in the journal.

Used by gather.py. The rules: a dump is one line, which says where it is and what of it is there;
what is missing, and what was removed for it, has a line with the reason; whoever reads it was
woken at night.
"""

from __future__ import annotations

from pathlib import Path

from pvfw.superblock import MIB

from ..dump.meter import Meter
from ..streams import complain, pasted, tell
from .dumps import MARKER, Dump

NAMED = 2  # lines on what is missing; all are in the dump's record


def published(dump: Dump, path: Path, meter: Meter, notes: list[str]) -> None:
    """Say that a dump has its folder.

    Args:
        dump: the dump.
        path: of its target.
        meter: of its copying.
        notes: on what is not in the folder.
    """
    beside = sorted(each.name for each in dump.path.iterdir())
    beside = [name for name in beside if name not in (MARKER, dump.facts.vmcore)]
    files = f", with {', '.join(beside)}" if beside else ""
    part = "the whole dump" if dump.facts.complete else "part of the dump"
    if dump.facts.alone:
        part = "log, notes and stacks"
    tell("collect", f"{dump.path}: {part} of {path}, {meter.done / MIB:.1f} MiB{files}")
    for line in notes:
        complain("collect", line)
    if dump.facts.encrypted:
        name = pasted(dump.path / dump.facts.vmcore)
        tell(
            "collect",
            f"it is encrypted: where the key is, `pvdump collect --identity KEY {name} NEW` opens "
            f"it, and `pvdump report NEW` says why the kernel died",
        )
    else:
        reason = dump.facts.reason
        known = f": {reason}" if reason else " is not known"
        tell("collect", f"why the kernel died{known}")
    missing(dump)


def missing(dump: Dump) -> None:
    """Say in one line what of a dump is not there."""
    lines = dump.facts.missing
    if lines:
        more = f"; {len(lines) - NAMED} more in {dump.path / MARKER}" if lines[NAMED:] else ""
        complain("collect", f"part of the dump is missing: {'; '.join(lines[:NAMED])}{more}")


def kept(dump: Dump, path: Path) -> str:
    """Return why a target keeps its dump though it was collected."""
    return (
        f"{path} keeps its dump and takes no other, as {dump.facts.lost}; what could be read is in "
        f"{dump.path}. If that is enough: `pvdump prepare --force {pasted(path)}`"
    )


def ready(path: Path, room: int, own: bool) -> None:
    """Say that a target takes the next dump. Args: its room, bytes; whether this guest armed it."""
    arm = "; `pvdump arm` arms it, which each boot does by itself" if own else ""
    tell("collect", f"{path} is ready for the next dump, of up to {room / MIB:.1f} MiB{arm}")


def removed(dump: Dump, why: str) -> None:
    """Say that an older dump is gone, and why."""
    facts = dump.facts
    reason = f" ({facts.reason})" if facts.reason else ""
    tell("collect", f"the dump {dump.path}{reason} was removed: {why}")
