"""`pvdump prepare`: make a disk, or a file or swap of this guest, a dump target.

Called by the command line. dump/prepare.py makes targets of whole disks, create.py of files and
swap.
"""

from __future__ import annotations

import argparse

from ..arguments import file_name, size
from ..dump.disk import MIB, PAGE, DiskError
from ..dump.meter import Meter
from ..dump.prepare import SMALLEST, prepare, prepare_again, prepared
from ..streams import complain, tell
from . import create

WRONG_USAGE = 2

DESCRIPTION = """\
Make a disk or file a dump target. Its first MiB gets a superblock; only a disk that has one is ever
written by the crash kernel. In the guest itself, --file makes a file on ext4 or xfs that the crash
kernel writes by its extents, and --swap takes swap space."""
EPILOG = """\
A disk counts as empty when all of it was read and is zero; of a sparse file the parts that the file
system has stored are read. A target takes one dump: collect it, then prepare it with --again."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.description, parser.epilog = DESCRIPTION, EPILOG
    parser.add_argument("disk", type=file_name, metavar="DISK-OR-FILE")
    parser.add_argument("--size", type=size, help="make the file, with this size (512M, 4G)")
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--file", action="store_true", help="make a file of this guest, with the size of --size"
    )
    where.add_argument(
        "--swap", action="store_true", help="take swap of this guest, which stays swap"
    )
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--force", action="store_true", help="also when it holds something")
    how.add_argument(
        "--again", action="store_true", help="only a target, and only if its dump was collected"
    )


def run(options: argparse.Namespace) -> int:
    """Run the command. Returns the exit code."""
    path = options.disk
    if options.file and not options.again and (options.size is None or options.force):
        complain("prepare", "--file needs --size, or --again; it has no --force")
        return WRONG_USAGE
    if options.size is not None and (options.again or options.swap):
        complain("prepare", "--size is for a file to be made, not for --again or --swap")
        return WRONG_USAGE
    with Meter() as meter:
        if options.again:
            done = prepare_again(path)
        elif options.file:
            done = prepared(create.file(path, _whole(options.size), meter))
        elif options.swap:
            done = prepared(create.take_swap(path, options.force))
        else:
            done = prepare(path, options.size, options.force, meter)
    if done.lost:
        tell("prepare", f"{path} held {done.lost}")
    room = f"room for a dump of {done.room / MIB:.1f} MiB"
    tell("prepare", f"{path} is ready: {room}, uuid {done.uuid}")
    return 0


def _whole(size: int) -> int:
    """Return a size for a file, whole pages."""
    if size < SMALLEST:
        raise DiskError(f"--size {size}: a target needs {SMALLEST} bytes at least")
    return size // PAGE * PAGE
