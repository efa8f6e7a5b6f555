"""`pvdump top`: a table of a dom0's guests, drawn anew each second on a terminal.

Called by the command line. The rule: what a terminal shows is printable, whatever a name has.
"""

from __future__ import annotations

import argparse
import json
import sys
import time

from ..arguments import file_name
from ..streams import complain, one_line
from ..watches.server import StatusError, ask
from .command import RUN, SOCKET, START
from .status import Status

PERIOD = 1.0  # s
CLEAR = "\x1b[H\x1b[2J"
HEADINGS = ("domain", "guest", "type", "state", "last event")


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.description = "Show how the guests of this dom0 stand, until interrupted."
    parser.add_argument("--once", action="store_true", help="print the table once")
    parser.add_argument("--json", action="store_true", help="print it once, as JSON")
    parser.add_argument(
        "--status",
        type=file_name,
        default=RUN / "daemon" / SOCKET,
        metavar="SOCKET",
        help=f"pvdumpd's socket (default: {RUN / 'daemon' / SOCKET})",
    )


def run(options: argparse.Namespace) -> int:
    """Run the command. Returns the exit code."""
    once = options.once or options.json or not sys.stdout.isatty()
    try:
        while True:
            status = ask(options.status, Status)
            if options.json:
                print(json.dumps(status.json()))
            else:
                print("" if once else CLEAR, table(status), sep="", flush=True)
            if once:
                return 0
            time.sleep(PERIOD)
    except StatusError as error:
        complain("top", f"pvdumpd does not answer ({error}): {START}")
        return 1


def table(status: Status) -> str:
    """Return the table."""
    lines = [HEADINGS]
    for row in status.guests:
        state = "down" if row.down else "up"
        cells = (str(row.domid), row.name or row.uuid, row.type or "-", state, row.last or "-")
        lines.append(tuple(map(one_line, cells)))  # type: ignore[arg-type]
    widths = [max(len(line[place]) for line in lines) for place in range(len(HEADINGS))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in lines
    )
