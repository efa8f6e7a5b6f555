"""`pvdump watches run | show`: run a command for each change in many domains, and show the queues.

Called by the command line. The rule: `run` ends by SIGINT, by SIGTERM or with its store, and ends
the commands that it started first.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil

from xenpv.errors import XenError

from ..arguments import file_name
from ..service.foreground import add_store, serve
from ..streams import complain
from ..xenstore.store import Store
from .dispatcher import Dispatcher
from .pattern import Pattern, PatternError
from .run import CommandError, Runner
from .server import StatusError, StatusServer, ask
from .status import Status, text

ERRORS = (XenError, PatternError, CommandError, StatusError)

RUN_EPILOG = """\
The first * of PATTERN stands for the domain. The command is run for each node that is there and
after each change, with PVDUMP_DOMID, PVDUMP_PATH and PVDUMP_VALUE (not set when the node is gone)
in its environment: one at a time for a domain, at the same time for different ones. For example

  pvdump watches run '/local/domain/*/data/pvdump/state' -- /etc/xen/on-dump-state"""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.description = "Watch a node of many domains; one whose command hangs holds up no other."
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")

    sub = actions.add_parser(
        "run",
        help="run a command after each change",
        description="Run a command after each change of a node in any domain.",
        epilog=RUN_EPILOG,
    )
    add_store(sub)
    sub.add_argument(
        "--status",
        type=file_name,
        metavar="SOCKET",
        help="make this socket, for `pvdump watches show`",
    )
    sub.add_argument("pattern", metavar="PATTERN", help="such as /local/domain/*/data/state")
    sub.add_argument("program", metavar="COMMAND")
    words = sub.add_argument("arguments", nargs=argparse.REMAINDER, metavar="ARGUMENT")
    words.required = False  # argparse's line on what is missing would name it

    sub = actions.add_parser(
        "show",
        help="show the queues of a running process",
        description="Show how each domain's queue stands in a process that serves a status socket.",
    )
    sub.add_argument("socket", type=file_name, metavar="SOCKET")
    sub.add_argument("--json", action="store_true", help="all fields, times in seconds")


def run(options: argparse.Namespace) -> int:
    """Run a subcommand. Returns the exit code."""
    try:
        return watch(options) if options.action == "run" else show(options)
    except ERRORS as error:
        complain("watches", str(error))
        return 1


def show(options: argparse.Namespace) -> int:
    """Print the status of a running `pvdump watches run`."""
    status = ask(options.socket, Status)
    print(json.dumps(status.json(), indent=2) if options.json else text(status))
    return 0


def watch(options: argparse.Namespace) -> int:
    """Run the command for each changed node until a signal."""
    pattern = Pattern(options.pattern)
    if shutil.which(options.program) is None:
        there = "/" in options.program and os.path.lexists(options.program)
        why = "it may not be executed" if there else "no such program"
        raise CommandError(f"command {options.program!r}: {why}")

    def begin(store: Store, stack: contextlib.ExitStack) -> None:
        dispatcher = stack.enter_context(Dispatcher(store))
        runner = Runner(store, pattern, [options.program, *options.arguments])
        stack.callback(runner.end)
        if options.status:
            stack.enter_context(StatusServer(options.status, dispatcher.status))
        runner.start(dispatcher)

    return serve("watches", options.store, begin)
