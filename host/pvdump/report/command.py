"""`pvdump report`: why a guest died, read out of its dump."""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import asdict
from pathlib import Path

from ..arguments import file_name, output_name
from ..dump.output import OutputFile
from . import page, place
from .facts import Report
from .gather import gather
from .text import Text

DONE = 0
DESCRIPTION = """\
Tell why a guest died: kernel, reason, stacks, tasks, memory, the end of the log. No debug symbols
are needed: the kernel's own tables in the dump are read, with drgn. Debug symbols that are
installed in the usual places are used; none are fetched. Without drgn there are the log, the
registers and the kernel's release."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.description = DESCRIPTION
    place.arguments(parser)
    parser.add_argument(
        "--symbols",
        action="append",
        default=[],
        type=file_name,
        metavar="FILE",
        help="debug symbols, such as a vmlinux; may be given several times",
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print JSON, as docs/report.md has it")
    form.add_argument(
        "--html",
        type=output_name,
        default=False,
        metavar="OUT",
        help="write a page to a new file, or - for standard output",
    )


def run(options: argparse.Namespace) -> int:
    """Read a dump and show what it tells. Returns the exit code.

    Raises:
        DumpError: there is no dump that can be read, or the page cannot be written.
        OSError: a file cannot be read, or standard output not written.
    """
    report = gather(place.named(options), options.symbols)
    if options.json:
        print(json.dumps(asdict(report), indent=2))
    elif options.html is not False:
        _write(page.render(report), options.html)
    else:
        _show(report)
    return DONE


def _show(report: Report) -> None:
    coloured = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    for line in Text(report, coloured).lines():
        print(line)


def _write(text: str, out: Path | None) -> None:
    if out is None:
        sys.stdout.write(text)
        return
    data = text.encode(errors="backslashreplace")
    with OutputFile(out, len(data)) as output:
        output.write(data)
        output.publish()
