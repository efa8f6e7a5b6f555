"""The command line: pvdump prepare | collect | info | watches | xenstored | blkback.

Called by the console script `pvdump` and by `python -m pvdump`. It needs nothing but the standard
library, so that it runs in any guest and any dom0. The rule: what a person wants to read goes to
standard output, what went wrong in one line to standard error, and the exit code tells them apart.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from pvfw.errors import DumpError

from .blkback import command as blkback
from .dump.collect import collect
from .dump.disk import MIB
from .dump.info import info, read_superblock, text
from .dump.prepare import prepare
from .watches import command as watches
from .xenstored import command as xenstored

OK, FAILED, INCOMPLETE = 0, 1, 3

EXITS = """\
exit codes: 0 done; 1 refused or failed, with the reason on standard error; 2 wrong usage;
3 collect: the dump is partial, and what there is of it was collected"""

UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


def size(value: str) -> int:
    """Bytes from a number with an optional K, M, G or T."""
    match = re.fullmatch(r"(\d+)([KMGT]?)", value.strip().upper())
    if not match:
        raise argparse.ArgumentTypeError(f"{value!r} is not a size such as 512M or 4G")
    return int(match[1]) * UNITS[match[2]]


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="pvdump",
        description="Crash dumps of Xen guests: prepare a disk, and get the dump off it.\n"
        "And watches of many domains, a xenstore for tests, and disks for guests.",
        epilog=EXITS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    sub = commands.add_parser(
        "prepare",
        help="make a disk or file a dump target",
        description="Make a disk or file a dump target. Its first MiB gets a superblock; only a "
        "disk that has one is ever written by the crash kernel.",
        epilog="A target takes one dump: collect it, then prepare it again with --force.",
    )
    sub.add_argument("disk", type=Path, metavar="DISK-OR-FILE")
    sub.add_argument("--size", type=size, help="make the file, with this size (512M, 4G)")
    sub.add_argument("--force", action="store_true", help="also when it holds something")

    sub = commands.add_parser(
        "collect",
        help="get the vmcore off a target",
        description="Copy the vmcore off a target into a new file, which crash, drgn and "
        "makedumpfile open. The target is only read.",
        epilog=EXITS,
    )
    sub.add_argument("disk", type=Path, metavar="DISK")
    sub.add_argument("out", type=Path, metavar="OUT", help="file to be made; must not exist")

    sub = commands.add_parser(
        "info",
        help="say what is on a target",
        description="Say what is on a target. Works beside a running guest.",
    )
    sub.add_argument("disk", type=Path, metavar="DISK")
    sub.add_argument("--json", action="store_true", help="all fields, sizes in bytes")

    watches.add(commands)
    xenstored.add(commands)
    blkback.add(commands)
    return top


class Copying:
    """MiB and MiB/s on one line of standard error, when that is a terminal."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.done = 0
        self.started = self.shown = time.monotonic()

    def advance(self, amount: int) -> None:
        self.done += amount
        now = time.monotonic()
        if sys.stderr.isatty() and now - self.shown > 0.2:
            self.shown = now
            print(f"\r\033[K{self}", end="", file=sys.stderr, flush=True)

    def clear(self) -> None:
        if sys.stderr.isatty():
            print("\r\033[K", end="", file=sys.stderr, flush=True)

    def __str__(self) -> str:
        seconds = max(time.monotonic() - self.started, 1e-3)
        done, total = self.done / MIB, self.total / MIB
        return f"{done:.1f}/{total:.1f} MiB  {done / seconds:.1f} MiB/s  {seconds:.1f} s"


def run_prepare(options: argparse.Namespace) -> int:
    done = prepare(options.disk, options.size, options.force)
    if done.lost:
        print(f"{options.disk} held {done.lost}")
    print(
        f"{options.disk} is ready: room for a dump of {done.room / MIB:.1f} MiB, uuid {done.uuid}"
    )
    return OK


def run_collect(options: argparse.Namespace) -> int:
    progress = Copying(read_superblock(options.disk).dump_size)
    try:
        done = collect(options.disk, options.out, progress.advance)
    finally:
        progress.clear()
    print(f"{options.out}: {progress}")
    if not done.reason:
        return OK
    print(f"pvdump: the dump is partial: {done.reason}", file=sys.stderr)
    print(
        f"pvdump: {done.missing / MIB:.1f} MiB are missing; the ELF header is marked incomplete",
        file=sys.stderr,
    )
    return INCOMPLETE


def run_info(options: argparse.Namespace) -> int:
    facts = info(options.disk)
    print(json.dumps(facts, indent=2) if options.json else text(facts))
    return OK


RUN = {
    "prepare": run_prepare,
    "collect": run_collect,
    "info": run_info,
    "watches": watches.run,
    "xenstored": xenstored.run,
    "blkback": blkback.run,
}


def main(arguments: Sequence[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    try:
        code = RUN[options.command](options)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        # Whoever read this has read enough, as `head` does; nothing may be left for the exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except DumpError as error:
        print(f"pvdump {options.command}: {error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print(f"pvdump {options.command}: interrupted", file=sys.stderr)
        return 128 + signal.SIGINT
