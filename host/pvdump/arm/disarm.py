"""`pvdump disarm`: unload the crash kernel.

Called by the command line and by the unit that stops pvdump. The rule: no image is loaded any more
when it ends without an error; the targets stay as they are.
"""

from __future__ import annotations

import argparse

from ..guest import record
from ..streams import tell
from . import arming

DESCRIPTION = """\
Unload the crash kernel and remove its configuration. The targets stay prepared; `pvdump arm` arms
again. As root."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.description = DESCRIPTION


def run(options: argparse.Namespace) -> int:
    """Run the command. Returns the exit code."""
    root = record.ROOT
    with arming.locked(root):
        loaded = arming.disarm(root)
    tell("disarm", "disarmed" if loaded else "no crash kernel was loaded")
    return 0
