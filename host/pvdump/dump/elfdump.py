"""A dump that is an ELF vmcore, as superblocks of version 1 have it, made into a file.

Used by collect. The rules: what cannot be read of a dump costs no more than itself, and is told to
the readers.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from pvfw import superblock
from xenpv.text import printable

from . import notes, source
from .compression import Compression
from .disk import MIB, PAGE, DiskError, TargetDisk
from .flattened import Flattened
from .frames import Block, Frames
from .kdump import DESCRIPTOR, Crash, Kdump
from .meter import Progress
from .notes import Notes
from .output import OutputFile, OutputStream
from .source import Dump

BLOCK = MIB


class Lost:
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


def copy_elf(
    disk: TargetDisk, dump: Dump, out: Path | None, progress: Progress
) -> tuple[Lost, bool]:
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
) -> Lost:
    """Copy the vmcore, its headers as they were checked; where the disk is gone, they are cut."""
    lost = Lost()
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


def make_kdump(
    disk: TargetDisk, dump: Dump, out: Path | None, progress: Progress, how: Compression
) -> Lost:
    """Make a KDUMP file of the vmcore. Returns what could not be read."""
    lost = Lost()
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


def _blocks(disk: TargetDisk, dump: Dump, frames: Frames, lost: Lost) -> Iterator[Block]:
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
