"""`pvdump remove`: undoes what `pvdump setup` did, by its record.

Called by the command line and by the packages when they are removed, as root. The rules: dumps
stay; what a person has changed since stays, and is said.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ..arm import arming
from ..streams import complain, tell
from . import changes, record
from .doctor import require_root
from .setup import ask

ROOT = Path("/")
FAILED = 1
# What is undone, by kind.
LINES = {
    "file": "restore",
    "folder": "remove if empty",
    "sysctl": "restore",
    "program": "run",
    "boots": "count no boots",
    "target-file": "remove the target",
    "target-device": "take the superblock off",
    "target-swap": "take the superblock off swap",
}
DESCRIPTION = """\
Undo what `pvdump setup` did: units, boot loader, settings, target. Dumps stay, and so do files that
somebody has changed since."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.description = DESCRIPTION
    parser.add_argument("--yes", action="store_true", help="do not ask")


def armed() -> bool:
    """Tell whether pvdump has loaded a crash kernel."""
    return bool(record.load(ROOT / arming.ARMED))


def run(options: argparse.Namespace) -> int:
    """Run the command. Returns the exit code."""
    require_root("remove")
    entries = changes.load(ROOT / changes.RECORD)
    if not entries:
        tell("remove", "nothing was set up")
        return 0
    for entry in reversed(entries):
        tell("remove", f"    undo: {LINES[entry['kind']]} {entry['key']}")
    if not options.yes:
        ask("Undo this?")
    # Before a target is taken away: its blocks may be another file's then.
    with arming.locked(ROOT):
        if any(entry["kind"].startswith("target-") for entry in entries) or armed():
            arming.disarm(ROOT)
    if not changes.revert(ROOT, lambda line: complain("remove", line)):
        complain("remove", "what failed is still recorded: `pvdump remove` tries it again")
        return FAILED
    tell("remove", "Undone. The memory for the crash kernel is free after the next boot.")
    return 0
