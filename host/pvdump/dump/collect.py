"""`pvdump collect`: get the vmcore off a dump target, as a file that the usual readers open.

Called by the command line and by the demo. The rules: of the target nothing is written but the note
in its superblock that the dump was collected; the result appears whole and in one step, or not at
all; what cannot be read of a dump costs no more than itself, and is told to the readers.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from pvfw import superblock
from pvfw.errors import TargetRefused

from ..arguments import file_name, output_name
from . import disk as disks
from .disk import MIB, DiskError, TargetDisk
from .meter import SILENT, Meter, Progress
from .output import OutputFile, OutputStream
from .vmcore import Header

INCOMPLETE = 3  # exit code
BLOCK = MIB
DESCRIPTION = """\
Copy the vmcore off a target into a new file, which crash, drgn and makedumpfile open. When all that
the target has of it is there, the target's superblock gets a note, for `pvdump prepare --again`;
nothing else of the target is written."""
EPILOG = """\
exit codes: 0 done; 1 refused or failed; 2 wrong usage; 3 part of the dump is missing, what there is
was collected and is marked incomplete"""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.description, parser.epilog = DESCRIPTION, EPILOG
    parser.add_argument("disk", type=file_name, metavar="DISK")
    parser.add_argument(
        "out",
        type=output_name,
        metavar="OUT",
        help="file to be made, must not exist; - for standard output",
    )
    parser.add_argument(
        "--salvage",
        action="store_true",
        help="do not look at the superblock: take the vmcore behind it by its own header",
    )


def run(options: argparse.Namespace) -> int:
    """Run the command. Returns the exit code."""
    with Meter() as meter:
        done = collect(options.disk, options.out, meter, options.salvage)
    # Standard output may be the vmcore.
    told = sys.stderr if options.out is None else sys.stdout
    print(f"{options.out or 'standard output'}: {meter}", file=told)
    if done.unnoted:
        print(f"pvdump: the target does not note it as collected: {done.unnoted}", file=sys.stderr)
    if not done.reason:
        return 0
    print(f"pvdump: the dump is partial: {done.reason}", file=sys.stderr)
    mark = "is" if done.marked else "could not be"
    print(
        f"pvdump: {(done.missing + done.unreadable) / MIB:.1f} MiB are missing; the ELF header "
        f"{mark} marked incomplete",
        file=sys.stderr,
    )
    return INCOMPLETE


@dataclass(frozen=True)
class Collected:
    """The result of collecting a dump.

    Attributes:
        size: bytes of the vmcore that were copied.
        missing: bytes that the whole has beyond them, as far as that is known.
        unreadable: bytes of `size` that are zeros because the disk could not be read there.
        reason: why something is missing, or "".
        marked: whether the vmcore says so.
        unnoted: why the target does not say that the dump was collected, or "".
    """

    size: int
    missing: int = 0
    unreadable: int = 0
    reason: str = ""
    marked: bool = False
    unnoted: str = ""


@dataclass(frozen=True)
class _Dump:
    """The dump on a target: where the vmcore begins, its bytes there and in whole, its headers.

    block: the superblock, None if it was not looked at; reason: why it is not all of the vmcore.
    """

    offset: int
    size: int
    whole: int
    reason: str
    header: Header
    block: superblock.Superblock | None


def collect(
    path: Path, out: Path | None, progress: Progress = SILENT, salvage: bool = False
) -> Collected:
    """Copy the dump from a target to a new file.

    Args:
        path: of the target.
        out: of the file; None for standard output.
        progress: is told the size, and the bytes that each step has copied.
        salvage: take the vmcore behind the superblock, whatever that says.

    Raises:
        DiskError: the target or the file cannot be used.
        TargetRefused: there is no dump to be had.
    """
    with disks.reading(path) as disk:
        dump = _salvaged(disk) if salvage else _recorded(disk)
        progress.expect(dump.size)
        with _output(out, dump.size) as output:
            lost = _copy(disk, dump, output, progress)
            reason = dump.reason or lost.reason()
            if lost.size and not dump.reason:
                dump.header.mark_incomplete()
                marked = output.replace_start(bytes(dump.header))
            else:
                marked = bool(reason)
            if dump.block is not None:
                _refuse_changed(disk, dump.block)
            output.publish()
    missing = dump.whole - dump.size
    unnoted = _note(path, dump, out, lost)
    return Collected(dump.size, missing, lost.size, reason, marked, unnoted)


def _output(out: Path | None, size: int) -> OutputFile | OutputStream:
    return OutputStream(sys.stdout.fileno()) if out is None else OutputFile(out, size)


def _recorded(disk: TargetDisk) -> _Dump:
    """Return the dump that the superblock tells of."""
    block = disk.superblock()
    if block.state == superblock.READY:
        more = "; `--salvage` takes the vmcore of an older dump" if disk.has_vmcore() else ""
        raise TargetRefused(f"{disk.path} holds no dump: it is ready for one{more}")
    if block.state == superblock.COMPLETE:
        size, reason = block.dump_size, ""
    elif block.state == superblock.PARTIAL:
        size, reason = block.written, block.reason or "no reason recorded"
    else:
        size, reason = block.written, "the guest is still writing, or was ended while it wrote"
    there = max(disk.size - block.data_offset, 0)
    if there < size:
        size, reason = there, f"the target ends at byte {disk.size}; it was larger once"
    header = Header(disk, block.data_offset, size)
    header.cut(size, block.dump_size)
    if reason:
        header.mark_incomplete()
    return _Dump(block.data_offset, size, block.dump_size, reason, header, block)


def _salvaged(disk: TargetDisk) -> _Dump:
    """Return the dump that begins where prepare() has every dump begin."""
    there = max(disk.size - superblock.DATA_OFFSET, 0)
    header = Header(disk, superblock.DATA_OFFSET, there)
    whole = header.extent()
    size = min(whole, there)
    header.cut(size, whole)
    header.mark_incomplete()
    reason = "the superblock was not looked at; what the guest did not write may be older data"
    return _Dump(superblock.DATA_OFFSET, size, whole, reason, header, None)


class _Lost:
    """Bytes of a disk that could not be read, and where the first of them are."""

    def __init__(self) -> None:
        self.size = 0
        self._first = 0

    def add(self, size: int, around: int) -> None:
        if size and not self.size:
            self._first = around
        self.size += size

    def reason(self) -> str:
        if not self.size:
            return ""
        return (
            f"{self.size} bytes of the disk could not be read, the first in the MiB at byte "
            f"{self._first}; zeros stand in their place"
        )


def _copy(
    disk: TargetDisk, dump: _Dump, output: OutputFile | OutputStream, progress: Progress
) -> _Lost:
    """Copy the vmcore, its headers as they were checked."""
    lost = _Lost()
    at = len(dump.header)
    output.write(bytes(dump.header))
    progress.advance(at)
    while at < dump.size:
        # To the next multiple, so that holes lie where the file system can have them.
        size = min(BLOCK - at % BLOCK, dump.size - at)
        data, unreadable = disk.read_around(dump.offset + at, size)
        if not data:
            raise DiskError(f"{disk.path} ends at byte {dump.offset + at}, before the dump does")
        lost.add(unreadable, dump.offset + at)
        output.write(data)
        at += len(data)
        progress.advance(len(data))
    return lost


def _refuse_changed(disk: TargetDisk, before: superblock.Superblock) -> None:
    """Refuse a dump that was replaced while it was copied. One that grew is as good as before."""
    after = disk.superblock()
    same = ("uuid", "size", "data_offset", "dump_size", "started")
    if any(getattr(before, name) != getattr(after, name) for name in same) or (
        after.written < before.written
    ):
        raise DiskError(f"{disk.path} was changed while it was copied: collect it again")


def _note(path: Path, dump: _Dump, out: Path | None, lost: _Lost) -> str:
    """Note on the target that its dump was collected. Returns why that was not done, or ""."""
    block = dump.block
    if block is None or block.state == superblock.WRITING:
        return "its superblock does not say that the dump has ended"
    if out is None:
        return "standard output does not say whether the dump has arrived"
    if lost.size:
        return "part of it could not be read"
    try:
        with disks.writing(path) as disk:
            _refuse_changed(disk, block)
            block.collected = int(time.time())
            disk.write(0, block.encode())
    except (DiskError, TargetRefused) as error:
        return str(error)
    return ""
