"""`pvdump events`: shows what pvdumpd wrote down of its guests.

Called by the command line.
"""

from __future__ import annotations

import argparse
import json

from ..arguments import file_name
from ..streams import tell
from . import events
from .command import STATE

DESCRIPTION = """\
Show what happened to this dom0's guests, the oldest first: panics, crash kernels that were started,
their ends. pvdumpd writes it down."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.description = DESCRIPTION
    parser.add_argument("--json", action="store_true", help="print each event as a line of JSON")
    parser.add_argument(
        "--state",
        type=file_name,
        default=STATE,
        metavar="FOLDER",
        help=f"where pvdumpd writes them (default: {STATE})",
    )


def run(options: argparse.Namespace) -> int:
    """Run the command. Returns the exit code. Raises OSError."""
    found = list(events.read(options.state))
    for event in found:
        tell("events", json.dumps(event) if options.json else events.text(event))
    if not found and not options.json:
        tell("events", f"no events in {options.state}")
    return 0
