"""`pvdump collect`: get the dump off a target, as an ELF vmcore or a KDUMP file.

Called by the command line and by the demo. The rules: of the target nothing is written but the note
in its superblock that the dump was collected; the result appears whole and in one step, or not at
all; what cannot be read of a dump costs no more than itself, and is told to the readers.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pvfw import superblock
from pvfw.errors import TargetRefused
from xenpv.text import printable

from ..arguments import file_name, output_name
from ..streams import complain, tell
from . import compression as compressions
from . import disk as disks
from . import log, notes, source
from .compression import Compression
from .disk import MIB, PAGE, DiskError, TargetDisk
from .flattened import Flattened
from .frames import Block, Frames
from .kdump import DESCRIPTOR, Crash, Kdump
from .meter import SILENT, Meter, Progress
from .notes import Notes
from .output import OutputFile, OutputStream
from .source import Dump

WRONG_USAGE, INCOMPLETE = 2, 3  # exit codes
BLOCK = MIB
DESCRIPTION = """\
Copy the dump off a target into a new file, which crash, drgn and makedumpfile open: the ELF vmcore
as it is, or a compressed KDUMP file. When all that the target has of it is there, the target's
superblock gets a note, for `pvdump prepare --again`; nothing else of the target is written. With
--log OUT is the crashed kernel's log alone, and nothing is noted."""
EPILOG = """\
exit codes: 0 done; 1 refused or failed; 2 wrong usage; 3 part of the dump is missing, what there is
was collected and is marked incomplete; with --log: part of the log is missing, OUT has the rest"""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.description, parser.epilog = DESCRIPTION, EPILOG
    parser.add_argument("disk", type=file_name, metavar="DISK")
    parser.add_argument(
        "out",
        type=output_name,
        metavar="OUT",
        help="file to be made, must not exist; - for standard output, where kdump has "
        "makedumpfile's flattened form",
    )
    parser.add_argument(
        "--format",
        choices=("elf", "kdump"),
        default="elf",
        help="of the file; default: elf",
    )
    parser.add_argument(
        "--compress",
        choices=compressions.NAMES,
        default="",
        help="of a kdump file's pages; zstd needs Python 3.14 or python3-zstandard, zlib suits old "
        "readers; default: zstd where this Python has it, else zlib",
    )
    parser.add_argument(
        "--salvage",
        action="store_true",
        help="do not look at the superblock: take the vmcore behind it by its own header",
    )
    parser.add_argument(
        "--log",
        action="store_true",
        help="only the crashed kernel's log, as text; reads no more of the dump than that needs",
    )


def run(options: argparse.Namespace) -> int:
    """Run the command. Returns the exit code."""
    if options.compress and options.format != "kdump":
        complain("collect", "--compress is for --format kdump")
        return WRONG_USAGE
    if options.log and options.format != "elf":
        complain("collect", "--log is text and has no --format")
        return WRONG_USAGE
    if options.log:
        missing = log.collect(options.disk, options.out, options.salvage)
        for line in missing:
            complain("collect", line)
        return INCOMPLETE if missing else 0
    kdump = compressions.find(options.compress) if options.format == "kdump" else None
    with Meter() as meter:
        done = collect(options.disk, options.out, meter, options.salvage, kdump)
    how = f", KDUMP, compression: {kdump.name}" if kdump else ""
    if options.out is None:
        complain("collect", f"standard output: {meter}{how}")
    else:
        tell("collect", f"{options.out}: {meter}{how}")
    if done.unnoted:
        complain("collect", f"the target does not note it as collected: {done.unnoted}")
    if not done.reason:
        return 0
    complain("collect", f"the dump is partial: {done.reason}")
    mark = "is" if done.marked else "could not be"
    complain(
        "collect",
        f"{(done.missing + done.unreadable) / MIB:.1f} MiB are missing; the header {mark} marked "
        f"incomplete",
    )
    return INCOMPLETE


@dataclass(frozen=True)
class Collected:
    """The result of collecting a dump.

    Attributes:
        size: bytes of the vmcore that were copied.
        missing: bytes that the whole has beyond them, as far as that is known.
        unreadable: bytes of `size` that the file has not, because the disk could not be read there.
        reason: why something is missing, or "".
        marked: whether the file says so.
        unnoted: why the target does not say that the dump was collected, or "".
    """

    size: int
    missing: int = 0
    unreadable: int = 0
    reason: str = ""
    marked: bool = False
    unnoted: str = ""


def collect(
    path: Path,
    out: Path | None,
    progress: Progress = SILENT,
    salvage: bool = False,
    kdump: Compression | None = None,
) -> Collected:
    """Copy the dump from a target to a new file.

    Args:
        path: of the target.
        out: of the file; None for standard output.
        progress: is told the size, and the bytes that each step has copied.
        salvage: take the vmcore behind the superblock, whatever that says.
        kdump: make a KDUMP file of pages that are compressed so; None copies the ELF vmcore.

    Raises:
        DiskError: the target or the file cannot be used.
        TargetRefused: there is no dump to be had, or not in this format.
    """
    with disks.reading(path) as disk:
        dump = source.salvaged(disk) if salvage else source.recorded(disk)
        if kdump is None:
            lost, marked = _copy_elf(disk, dump, out, progress)
        else:
            lost, marked = _make_kdump(disk, dump, out, progress, kdump), True
    reason = dump.reason or lost.reason
    unnoted = _note(path, dump, out, lost)
    missing = dump.whole - dump.size
    return Collected(dump.size, missing, lost.size, reason, marked and bool(reason), unnoted)


class _Lost:
    """What could not be read of a disk: the bytes that are not in the file, and a line on it."""

    def __init__(self) -> None:
        self.size = 0
        self.reason = self._first = ""

    def add(self, size: int, first: str) -> None:
        """Count bytes; the first time, `first` says where they are and what becomes of all."""
        self._first = first if not self.size else self._first
        self.size += size
        self.reason = f"{self.size} bytes of the disk could not be read, the first {self._first}"

    def end(self, size: int, error: DiskError) -> None:
        """Count the bytes from where the disk is gone."""
        self.size += size
        self.reason = f"from there on, the disk could not be read: {error}"


def _copy_elf(
    disk: TargetDisk, dump: Dump, out: Path | None, progress: Progress
) -> tuple[_Lost, bool]:
    """Copy the vmcore. Returns what could not be read, and whether the copy tells it."""
    progress.expect(dump.size)
    with _stream() if out is None else OutputFile(out, dump.size) as output:
        start = bytes(dump.header)
        lost = _copy(disk, dump, output, progress)
        lost.reason = lost.reason or source.look_again(disk, dump)
        if lost.reason:
            dump.header.mark_incomplete()
        replaced = start == bytes(dump.header) or output.replace_start(bytes(dump.header))
        output.publish()
    return lost, replaced or bool(dump.reason)


def _stream() -> OutputStream:
    return OutputStream(sys.stdout.fileno())


def _copy(
    disk: TargetDisk, dump: Dump, output: OutputFile | OutputStream, progress: Progress
) -> _Lost:
    """Copy the vmcore, its headers as they were checked; where the disk is gone, they are cut."""
    lost = _Lost()
    at = len(dump.header)
    output.write(bytes(dump.header))
    progress.advance(at)
    while at < dump.size:
        # To the next multiple, so that holes lie where the file system can have them.
        size = min(BLOCK - at % BLOCK, dump.size - at)
        try:
            data, unreadable = _read(disk, dump.offset + at, size)
        except DiskError as error:
            if at == len(dump.header):
                raise
            lost.end(dump.size - at, error)
            dump.header.cut(at, dump.whole)
            break
        if unreadable:
            first = f"in the MiB at byte {dump.offset + at}; zeros stand in their place"
            lost.add(sum(count for _, count in unreadable), first)
        output.write(data)
        at += len(data)
        progress.advance(len(data))
    return lost


def _read(disk: TargetDisk, offset: int, size: int) -> tuple[bytes, list[tuple[int, int]]]:
    data, unreadable = disk.read_around(offset, size)
    if not data:
        raise DiskError(f"{disk.path} ends at byte {offset}, before the dump does")
    return data, unreadable


def _make_kdump(
    disk: TargetDisk, dump: Dump, out: Path | None, progress: Progress, how: Compression
) -> _Lost:
    """Make a KDUMP file of the vmcore. Returns what could not be read."""
    lost = _Lost()
    frames = Frames(disk.path, dump.header, dump.size)
    progress.expect(len(frames) * PAGE)
    room = len(frames) * DESCRIPTOR.size
    with Flattened(_stream()) if out is None else OutputFile(out, room) as output:
        raw, unreadable = notes.read(disk, dump.offset, dump.header)
        if unreadable:
            lost.add(unreadable, "in the notes; zeros stand in their place")
        file = Kdump(output, _crash(dump, Notes(raw)), frames.ram, frames.stored, how)
        for first, data, bad in _blocks(disk, dump, frames, lost):
            if bad:
                where = f"for the page at {bad[0] * PAGE:#x} of RAM; such pages are left out"
                lost.add(len(bad) * PAGE, where)
            begin = first
            end = first + len(data) // PAGE
            for pfn in (*bad, end):
                file.raw(begin, data[(begin - first) * PAGE : (pfn - first) * PAGE])
                begin = pfn + 1
            progress.advance(len(data))
        lost.reason = lost.reason or source.look_again(disk, dump)
        file.finish(bool(dump.reason or lost.reason))
        output.publish()
    return lost


def _blocks(disk: TargetDisk, dump: Dump, frames: Frames, lost: _Lost) -> Iterator[Block]:
    """Yield the stored frames up to where the disk is gone."""
    left = len(frames) * PAGE
    try:
        for block in frames.blocks(disk, dump.offset):
            yield block
            left -= len(block.data)
    except DiskError as error:
        if left == len(frames) * PAGE:
            raise
        lost.end(left, error)


def _crash(dump: Dump, told: Notes) -> Crash:
    """Return what a KDUMP file's headers tell of a crash: by its notes, else by the superblock."""
    block = dump.block
    release = printable(told.text("OSRELEASE")) or (block.release if block else "")
    started = block.started if block else 0
    known = block is not None and block.crash_vcpu != superblock.UNKNOWN_VCPU
    return Crash(
        told,
        release,
        told.number("CRASHTIME") or min(started, (1 << 63) - 1),
        block.crash_vcpu if block is not None and known else 0,
    )


def _note(path: Path, dump: Dump, out: Path | None, lost: _Lost) -> str:
    """Note on the target that its dump was collected. Returns why that was not done, or ""."""
    block = dump.block
    if block is None or block.state == superblock.WRITING:
        return "its superblock does not say that the dump has ended"
    if out is None:
        return "standard output does not say whether the dump has arrived"
    if lost.reason:
        return "part of the disk could not be read"
    try:
        with disks.writing(path) as disk:
            source.refuse_changed(disk, block)
            block.collected = int(time.time())
            disk.write(0, block.encode())
    except (DiskError, TargetRefused) as error:
        return str(error)
    return ""
