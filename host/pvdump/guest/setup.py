"""`pvdump setup`: makes a guest dump its panics, after it has said what it will do.

Called by the command line, as root. plan.py says what is to change, changes.py makes the changes
and keeps the record for `pvdump remove`.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from pvfw.errors import DumpError

from ..arm import settings
from ..streams import tell
from ..xenstore.stream import default_path
from . import changes, facts, plan, xen
from .doctor import require_root

ROOT = Path("/")
END_REBOOT = "Reboot once: memory for the crash kernel is reserved when the kernel starts."
END = "This guest is set up. `pvdump doctor` says whether a panic would be dumped."
DESCRIPTION = """\
Set this guest up so that a panic is dumped: target, memory for the crash kernel, boot loader,
units. Says what it will do and asks once. `pvdump remove` undoes it."""
EPILOG = """\
Without --target the first of these is taken: a disk that is prepared, a file in the folder for
dumps, swap. A guest that is set up already is left as it is. docs/setup.md has what is changed."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.description, parser.epilog = DESCRIPTION, EPILOG
    parser.add_argument(
        "--target",
        type=target,
        metavar="file|swap|/dev/...|/FILE",
        help="where dumps go: a new file in the folder for dumps, swap, a disk, partition or "
        "volume, or a new file of that name",
    )
    parser.add_argument(
        "--level", type=level, metavar="LEVEL", help="what to leave out, as that of `pvdump arm`"
    )
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--yes", action="store_true", help="do not ask")
    how.add_argument(
        "--dry-run", action="store_true", help="print what would be done, and do nothing"
    )


def target(text: str) -> str:
    """Read file, swap, or an absolute path. Raises ArgumentTypeError."""
    if text not in ("file", "swap") and not text.startswith("/"):
        raise argparse.ArgumentTypeError(f"{text[:40]!r}: file, swap or /... expected")
    return text


def level(text: str) -> str:
    """Read a level, and return it as the settings have it. Raises ArgumentTypeError."""
    settings.level(text)
    return text


def run(options: argparse.Namespace) -> int:
    """Run the command. Returns the exit code."""
    require_root("setup")
    guest = facts.read(ROOT, xen.read_store(default_path()))
    made = plan.make(guest, options.target, options.level)
    show(made)
    if options.dry_run:
        return 0
    if made.steps:
        if not options.yes:
            ask("Do this?")
        changes.apply(made.steps, ROOT, lambda line: tell("setup", line))
    for line in made.offers:
        tell("setup", f"you may also want: {line}")
    tell("setup", END_REBOOT if made.reboot else END)
    return 0


def show(made: plan.Plan) -> None:
    """Say what would be done."""
    for line in made.notes:
        tell("setup", line)
    if not made.steps:
        tell("setup", "Nothing is to be changed.")
    for step in made.steps:
        for line in step.describe().splitlines():
            tell("setup", f"    {line}")


def ask(question: str) -> None:
    """Ask a person.

    Raises:
        DumpError: the answer is not yes, or there is nobody to ask.
    """
    if not sys.stdin or not sys.stdin.isatty():
        raise DumpError("nothing was changed: there is no terminal to ask on; say --yes")
    print(f"{question} [y/N] ", end="", flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise DumpError("nothing was changed")
