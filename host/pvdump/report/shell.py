"""`pvdump drgn`: drgn on a dump, with what the dump itself holds in place of debug symbols."""

from __future__ import annotations

import argparse
import runpy
import sys

from ..arguments import file_name
from ..streams import complain
from . import place
from .engine import engine

DONE = 0
DESCRIPTION = """\
Open a dump in drgn: its prompt, or a script of one's own, with `prog` as drgn has it. The kernel's
types, symbols and variables are those that the dump itself holds; debug symbols come first where
they are found."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.description = DESCRIPTION
    parser.add_argument(
        "--symbols",
        action="append",
        default=[],
        type=file_name,
        metavar="FILE",
        help="debug symbols, such as a vmlinux; may be given several times",
    )
    place.arguments(parser)
    parser.add_argument("script", nargs="?", type=file_name, metavar="SCRIPT", help="run this")
    words = parser.add_argument(
        "words", nargs=argparse.REMAINDER, metavar="ARG", help="arguments of the script"
    )
    words.required = False  # argparse's line on what is missing would name it


def run(options: argparse.Namespace) -> int:
    """Open drgn. Returns the exit code.

    Raises:
        DumpError: drgn is not installed, there is no dump, or drgn cannot open it.
        OSError: the script cannot be read.
    """
    core = engine().program.Core(place.named(options), options.symbols)
    import drgn.cli

    for line in core.lacks:
        complain("drgn", line)
    if options.script is None:
        drgn.cli.run_interactive(core.program)
        return DONE
    with options.script.open():
        pass  # it can be read
    drgn.set_default_prog(core.program)
    sys.argv = [str(options.script), *options.words]
    runpy.run_path(str(options.script), init_globals={"prog": core.program}, run_name="__main__")
    return DONE
