"""`pvdump collect`: get dumps off targets, into a file, or into the guest's folder of dumps.

Called by the command line. With names it makes one file of one dump, in dom0 or anywhere; without,
in the guest, gather.py gets all dumps of the guest's own targets.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ..arguments import file_name, output_name
from ..arm import settings
from ..dump import compression as compressions
from ..dump.collect import collect, collect_log
from ..dump.disk import MIB
from ..dump.log import NoLog
from ..dump.meter import Meter
from ..streams import complain, tell

NO_OUT = Path()  # in place of OUT, where it was not said
WRONG_USAGE, INCOMPLETE = 2, 3  # exit codes
DESCRIPTION = """\
With DISK and OUT: copy the dump off a target into a new file, which crash, drgn and makedumpfile
open: a compressed KDUMP file or an ELF vmcore. When all that the target has of it is there, the
target's superblock gets a note, for `pvdump prepare --again`; nothing else of the target is
written. With --log OUT is the crashed kernel's log alone, and nothing is noted. An encrypted dump
needs --identity; without, it is checked and saved as it is, in OUT.age. Such a file, or what
`age --decrypt` made of it, may stand in place of DISK.
Without names, in a guest: copy the dumps off all targets of the settings into folders of their own
below that of `directory:` (/var/crash), with log and reports, and make the targets ready again."""
EPILOG = """\
exit codes: 0 done; 1 refused or failed, or a hook failed; 2 wrong usage; 3 part of the dump is
missing, what there is was collected and is marked incomplete; with --log: part of the log is
missing, OUT has the rest"""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.description, parser.epilog = DESCRIPTION, EPILOG
    parser.add_argument("disk", type=file_name, metavar="DISK", nargs="?")
    parser.add_argument(
        "out",
        type=output_name,
        metavar="OUT",
        nargs="?",
        default=NO_OUT,
        help="file to be made, must not exist; - for standard output, where kdump has "
        "makedumpfile's flattened form",
    )
    parser.add_argument(
        "--from",
        dest="source",
        type=file_name,
        metavar="DISK",
        help="without names: take this target in place of those of the settings, as in dom0",
    )
    parser.add_argument(
        "--defer-hooks",
        action="store_true",
        help="without names: leave the hooks of after.d to the next `pvdump collect`",
    )
    settings.add_file(parser)
    parser.add_argument(
        "--format",
        choices=("elf", "kdump"),
        help="of the file; default: kdump, of a dump that is an ELF vmcore elf",
    )
    parser.add_argument(
        "--compress",
        choices=compressions.NAMES,
        default="",
        help="of a kdump file's pages; default: zstd, as the dump has them; zlib suits old "
        "readers. zlib, none and --format elf need Python 3.14 or python3-zstandard; of a dump "
        "that is an ELF vmcore zstd does, and without it zlib is the default",
    )
    parser.add_argument(
        "--identity",
        type=file_name,
        metavar="FILE",
        help="file with private keys, as of `age --identity`, to decrypt an encrypted dump; needs "
        "the program age or the Python module pyrage",
    )
    parser.add_argument(
        "--salvage",
        action="store_true",
        help="do not believe the superblock: take it or its copy at the target's end, as the dump "
        "bears out, or without a copy what stands behind it, by its own headers",
    )
    parser.add_argument(
        "--log",
        action="store_true",
        help="only the crashed kernel's log, as text; reads no more of the dump than that needs",
    )


def run(options: argparse.Namespace) -> int:
    """Run the command. Returns the exit code."""
    if wrong := _wrong(options):
        complain("collect", wrong)
        return WRONG_USAGE
    if options.disk is None:
        return _gathered(options)
    if options.log:
        try:
            missing = collect_log(options.disk, options.out, options.salvage, options.identity)
        except NoLog as error:
            raise NoLog(f"{error}; collect the vmcore without --log") from error
        for line in missing:
            complain("collect", line)
        return INCOMPLETE if missing else 0
    with Meter() as meter:
        done = collect(
            options.disk,
            options.out,
            meter,
            options.salvage,
            options.format or ("kdump" if options.compress else ""),
            options.compress,
            options.identity,
        )
    how = f", KDUMP, compression: {done.compression}" if done.compression else ""
    if done.encrypted:
        how = ", still encrypted: `pvdump collect --identity FILE` or `age --decrypt` opens it"
    say = complain if done.out is None else tell
    say("collect", f"{done.out or 'standard output'}: {meter}{how}")
    if done.cause:
        say("collect", f"why the kernel died: {done.cause}")
    if done.alone:
        say("collect", "log, notes and stacks alone, as the dump's level says")
    if done.unnoted:
        complain("collect", f"the target does not note it as collected: {done.unnoted}")
    if not done.reason:
        return 0
    complain("collect", f"the dump is partial: {done.reason}")
    for line in done.detail:
        complain("collect", line)
    if done.encrypted:
        complain("collect", "it opens up to the first place where something is missing")
        return INCOMPLETE
    mark = "is" if done.marked else "could not be"
    lost = done.missing + done.unreadable
    lack = f"{lost / MIB:.1f} MiB are missing; " if lost else ""
    complain("collect", f"{lack}the header {mark} marked incomplete")
    return INCOMPLETE


def _wrong(options: argparse.Namespace) -> str:
    """Return what is wrong with the options together, or ""."""
    alone = options.source or options.defer_hooks or options.config
    file = options.format or options.compress or options.identity or options.salvage or options.log
    if options.disk is None and file:
        return "the following arguments are required: DISK, OUT"
    if options.disk is not None and options.out is NO_OUT:
        return "the following arguments are required: OUT; see pvdump collect --help"
    if options.disk is not None and alone:
        return "--from, --defer-hooks and --config are for collecting without names"
    if options.compress and options.format == "elf":
        return "--compress is for --format kdump"
    if options.log and (options.format or options.compress):
        return "--log is text and has no --format or --compress"
    return ""


def _gathered(options: argparse.Namespace) -> int:
    """Get the dumps of the settings' targets. Returns the exit code."""
    from . import gather  # takes a while, and few need it

    found = settings.settled(options)
    paths = [options.source] if options.source else gather.targets(found)
    if not paths:
        tell("collect", f"no targets in {options.config or settings.SYSTEM}: `pvdump setup`")
    own = options.source is None
    return gather.gather(gather.Guest.of(found), paths, options.defer_hooks, own)
