"""`pvdump list`: the dumps in the guest's folder of dumps.

Called by the command line.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

from ..arm import settings
from ..dump.disk import MIB
from ..streams import one_line
from . import dumps
from .dumps import Dump

HEADS = ("TIME", "RELEASE", "SIZE", "COMPLETE", "FOLDER", "REASON")


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.description = "Show the dumps that were collected in this guest, the oldest first."
    parser.add_argument("--json", action="store_true", help="all that is known, sizes in bytes")
    settings.add_file(parser)


def run(options: argparse.Namespace) -> int:
    """Run the command. Returns the exit code."""
    directory = settings.settled(options)["directory"]
    found = [facts(dump) for dump in dumps.found(directory)]
    if options.json:
        print(json.dumps(found, indent=2))
    elif found:
        print(table(found))
    else:
        print(f"no dumps in {one_line(str(directory))}")
    return 0


def facts(dump: Dump) -> dict[str, Any]:
    """Return what is known of a dump; None for what is not."""
    known = dump.facts
    return {
        "folder": str(dump.path),
        "time": known.when().isoformat(),
        "release": known.release or None,
        "reason": known.reason or None,
        "size": dump.size(),
        "complete": known.complete,
        "missing": known.missing,
        "log_only": known.alone,
        "encrypted": known.encrypted,
        "target": known.target,
        "hooks_failed": known.hooks,
        "hooks_pending": known.pending,
    }


def table(found: list[dict[str, Any]]) -> str:
    """Format what facts() gave for a person, a line a dump."""
    rows = [HEADS] + [
        (
            each["time"][:19].replace("T", " "),
            each["release"] or "unknown",
            f"{each['size'] / MIB:.1f} MiB",
            "yes" if each["complete"] else "no",
            each["folder"],
            each["reason"] or ("encrypted" if each["encrypted"] else "unknown"),
        )
        for each in found
    ]
    rows = [tuple(map(one_line, row)) for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows)]
    return "\n".join(
        "  ".join(word.ljust(width) for word, width in zip(row, widths)).rstrip() for row in rows
    )
