"""`pvdump log`: the kernel's log of the last dump, as text on standard output.

Called by the command line. The rule: whatever the log has, it cannot harm a terminal.
"""

from __future__ import annotations

import argparse
import os
import re
import sys

from ..arm import settings
from ..dump.disk import DiskError
from ..dump.output import OutputStream
from ..streams import pasted
from . import dumps

PIECE = 1 << 20  # bytes
CONTROL = re.compile(rb"[^\t\n -~]")  # and what is no ASCII
DESCRIPTION = """\
Show the kernel's log of the last dump that was collected in this guest. On a terminal control
characters are escaped."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.description = DESCRIPTION
    settings.add_file(parser)


def run(options: argparse.Namespace) -> int:
    """Run the command. Returns the exit code."""
    dump = dumps.newest(settings.settled(options)["directory"])
    path = dump.path / dumps.LOG
    if dump.facts.encrypted:
        raise DiskError(
            f"{dump.path} is encrypted: `pvdump collect --identity FILE --log "
            f"{pasted(dump.path / dump.facts.vmcore)} -` where the key is"
        )
    output = OutputStream(sys.stdout.fileno(), text=True)
    terminal = os.isatty(sys.stdout.fileno())
    try:
        with path.open("rb") as stream:
            while piece := stream.read(PIECE):
                output.write(CONTROL.sub(_escaped, piece) if terminal else piece)
    except FileNotFoundError:
        raise DiskError(f"{dump.path} has no {dumps.LOG}: the dump has no log as text") from None
    return 0


def _escaped(found: re.Match[bytes]) -> bytes:
    return b"\\x%02x" % found[0][0]
