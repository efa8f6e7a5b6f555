"""`pvdump doctor`: says whether a panic of this guest would be dumped, and what mends it if not.

Called by the command line, as root. Nothing is changed. checks.py finds what there is to say,
states.py has the texts.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterable
from pathlib import Path

from pvfw.errors import DumpError

from ..streams import tell
from ..xenstore.stream import default_path
from . import checks, facts, xen
from .states import ADVICE, DOM0, NO, OK, Finding

ROOT = Path("/")
EXITS = {OK: 0, NO: 1, DOM0: 2}
MARKS = {OK: "ok    ", ADVICE: "advice", DOM0: "dom0  ", NO: "NO    "}
ENDS = {
    OK: "A panic now would be dumped.",
    NO: "A panic now would not be dumped.",
    DOM0: "Whether a panic now would be dumped depends on dom0.",
}
DESCRIPTION = """\
Say whether a panic of this guest would be dumped now. Each finding has what is seen, why it matters
and the line that mends it. Nothing is changed."""
EPILOG = """\
exit codes: 0 a panic now would be dumped; 1 it would not, or the command failed; 2 it depends on
dom0. All findings are in docs/doctor.md."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.description, parser.epilog = DESCRIPTION, EPILOG
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")


def run(options: argparse.Namespace) -> int:
    """Run the command. Returns the exit code."""
    require_root("doctor")
    guest = facts.read(ROOT, xen.read_store(default_path()))
    if guest.xen is not None and guest.xen.dom0:
        return in_dom0(options)
    found = checks.examine(guest)
    worst = checks.verdict(found)
    if options.json:
        tell("doctor", json.dumps({"verdict": worst, "findings": [f._asdict() for f in found]}))
    else:
        for line in report(found):
            tell("doctor", line)
    return EXITS[worst]


def in_dom0(options: argparse.Namespace) -> int:
    """Say how dom0 does by its guests. Returns the exit code."""
    from ..dom0 import doctor

    found = doctor.examine()
    if options.json:
        tell("doctor", json.dumps({"findings": [seen._asdict() for seen in found]}))
    else:
        for line in doctor.report(found):
            tell("doctor", line)
    return 0 if all(seen.good for seen in found) else 1


def require_root(command: str) -> None:
    """Refuse to go on as a user. Raises DumpError."""
    if os.geteuid() != 0:
        raise DumpError(f"only root may do this: sudo pvdump {command}")


def report(found: Iterable[Finding]) -> list[str]:
    """Return the findings as lines for a person; those that matter most come last."""
    order = {verdict: place for place, verdict in enumerate((OK, ADVICE, DOM0, NO))}
    found = sorted(found, key=lambda finding: order[finding.verdict])
    lines = []
    for finding in found:
        lines.append(f"{MARKS[finding.verdict]}  {finding.what}")
        if finding.why:
            lines.append(f"        {finding.why}")
        if finding.mend:
            who = "ask dom0's owner for" if finding.owner else "mend"
            lines.append(f"        {who}: {finding.mend}")
    return [*lines, ENDS[checks.verdict(found)]]
