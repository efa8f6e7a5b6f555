"""The command line: pvdump and the commands in COMMANDS.

Called by the console script `pvdump` and by `python -m pvdump`. It needs nothing but the standard
library, so that it runs in any guest and any dom0. The rules: only the command that is asked for is
imported; what a person wants to read goes to standard output, what went wrong in one line to
standard error, and the exit code tells them apart.
"""

from __future__ import annotations

import argparse
import importlib
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

from pvfw.errors import DumpError

from . import __version__
from .streams import as_root, complain, ensure_streams, leave_output, one_line, pasted

FAILED = 1
# Each command: the module that has arguments(parser) and run(options), and a line for --help.
COMMANDS = {
    "prepare": ("place.command", "make a disk or file a dump target"),
    "arm": ("arm.command", "load the crash kernel"),
    "disarm": ("arm.disarm", "unload the crash kernel"),
    "test": ("arm.trial", "verify the way of a dump, without a panic or with one"),
    "estimate": ("arm.estimate", "tell what a dump would take"),
    "status": ("arm.status", "tell whether a panic would be dumped"),
    "collect": ("guest.collect", "copy dumps off targets"),
    "list": ("guest.listing", "show the dumps that were collected"),
    "log": ("guest.lastlog", "show the kernel's log of the last dump"),
    "report": ("report.command", "tell why a guest died, from its dump"),
    "drgn": ("report.shell", "open a dump in drgn"),
    "sign": ("guest.sign", "sign the image for Secure Boot"),
    "sign-boot": ("guest.signboot", "sign kernels and boot entries for pvboot"),
    "booted": ("guest.booted", "tell pvboot that this boot has come to its end"),
    "info": ("dump.info", "show the superblock of a target"),
    "watches": ("watches.command", "run a command after each change of a node in any domain"),
    "xenstored": ("xenstored.command", "serve a xenstore on a unix socket"),
    "setup": ("guest.setup", "set this guest up so that a panic is dumped"),
    "remove": ("guest.remove", "undo what setup did"),
    "doctor": ("guest.doctor", "say whether a panic would be dumped, and what mends it"),
    "blkback": ("blkback.command", "serve disks to guests"),
    "daemon": ("dom0.command", "serve a dom0: have its guests' panics end in dumps"),
    "enable": ("dom0.enable", "have a PVH guest's panic end in a dump, by its xl.cfg"),
    "events": ("dom0.eventlist", "show what happened to a dom0's guests"),
    "top": ("dom0.top", "show how a dom0's guests stand"),
    "script": ("script.command", "make a guest of a Python script"),
}
# Commands that serve end by these signals themselves; the others are interrupted by them.
ENDING = (signal.SIGTERM, signal.SIGHUP)

DESCRIPTION = """\
Prepare disks for crash dumps of Xen guests, configure the crash kernel, collect the dumps, tell
what they say. Also: watch nodes of many domains, serve a xenstore for tests, serve disks, make
guests of Python scripts."""
EXITS = """\
exit codes: 0 done; 1 refused or failed, with the reason on standard error; 2 wrong usage;
3 collect: part of the dump is missing, and what there is of it was collected"""


class Parser(argparse.ArgumentParser):
    """A parser that says what is wrong in one line."""

    def __init__(self, **options: Any) -> None:
        options.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        """Say what is wrong and exit with 2."""
        self.exit(2, f"{self.prog}: {one_line(message)}; see {self.prog} --help\n")

    def _print_message(self, message: str, file: Any = None) -> None:
        # argparse's own says nothing where standard output cannot be written.
        if file is sys.stdout:
            file.write(message)
        else:
            super()._print_message(message, file)


class Ended(BaseException):
    """A signal that ends the program has come. Not an Exception: nothing may go on after it."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def parser(command: str) -> Parser:
    """Make the parser of the whole command line, with the arguments of one command."""
    top = Parser(prog="pvdump", description=DESCRIPTION, epilog=EXITS)
    top.add_argument("--version", action="version", version=f"pvdump {__version__}")
    commands = top.add_subparsers(
        dest="command", required=True, metavar="COMMAND", parser_class=Parser
    )
    for name, (_, line) in COMMANDS.items():
        sub = commands.add_parser(name, help=line)
        if name == command:
            module(name).arguments(sub)
    return top


def module(command: str) -> Any:
    """Import a command."""
    return importlib.import_module(f".{COMMANDS[command][0]}", __package__)


def main(words: Sequence[str] | None = None) -> int:
    """Run the command line; whatever ends it gives an exit code and at most one line.

    Args:
        words: the arguments; None for the program's own.

    Returns:
        the exit code.
    """
    ensure_streams()
    words = sys.argv[1:] if words is None else words
    # No option of pvdump itself takes a value, so the first word is the command.
    command = next((word for word in words if not word.startswith("-")), "")
    try:
        with ending_signals():
            code = run(command, words)
            sys.stdout.flush()
            return code
    except BrokenPipeError:
        # The reader, such as `head`, has read enough.
        leave_output()
        return 128 + signal.SIGPIPE
    except DumpError as error:
        complain(command, f"{error}{as_root(command, error)}")
        return FAILED
    except OSError as error:
        leave_output()
        line = f"{error.filename or 'standard output'}: {error.strerror or error}"
        complain(command, f"{line}{as_root(command, error)}")
        return FAILED
    except KeyboardInterrupt:
        complain(command, "interrupted")
        return 128 + signal.SIGINT
    except Ended as end:
        complain(command, f"ended by {signal.Signals(end.number).name}")
        return 128 + end.number


def run(command: str, words: Sequence[str]) -> int:
    """Run a command with its arguments. Returns the exit code."""
    try:
        options = parsed(command, words)
    except SystemExit as end:  # --help, --version, or wrong usage, which was said
        return int(end.code or 0)
    code: int = module(command).run(options)
    return code


def parsed(command: str, words: Sequence[str]) -> argparse.Namespace:
    """Read the arguments of a command. Raises SystemExit, after the line that says why."""
    top = parser(command)
    options, rest = top.parse_known_args(words)
    if rest:
        # argparse's own line names the whole program, and its help in place of the command's.
        own = commands_of(top).choices[command]
        own.error(f"unrecognized arguments: {' '.join(map(pasted, rest))}")
    return options


def commands_of(top: argparse.ArgumentParser) -> Any:
    """Return the action of a parser that has its commands, by name, as `choices`."""
    (commands,) = (each for each in top._actions if isinstance(each, argparse._SubParsersAction))
    return commands


@contextmanager
def ending_signals() -> Iterator[None]:
    """Have the signals that end a program raise Ended, so that nothing half done is left."""

    def end(number: int, frame: object) -> None:
        for other in ENDING:
            signal.signal(other, signal.SIG_IGN)  # the cleaning up is not interrupted
        raise Ended(number)

    # A process that ignores SIGHUP was started by nohup.
    before = {
        number: signal.signal(number, end)
        for number in ENDING
        if signal.getsignal(number) is signal.SIG_DFL
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
