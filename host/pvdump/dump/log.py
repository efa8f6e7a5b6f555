"""The crashed kernel's log in the vmcore on a target, as text.

Used by collect. The rules: of the dump only the headers, the notes and the pages that the log lies
in are read, so this takes as long for a large guest as for a small one; the guest may have written
anything there, so pvfw.printk checks all of it; a record that is missing or damaged costs only
itself, and is told.
"""

from __future__ import annotations

import sys
from bisect import bisect_right
from functools import lru_cache
from pathlib import Path

from pvfw import elf, superblock
from pvfw.errors import CoreError
from pvfw.printk import Log
from pvfw.vmcoreinfo import Vmcoreinfo
from xenpv.text import printable

from . import notes, source
from .disk import PAGE, BadPlace, DiskError, TargetDisk
from .output import OutputFile, OutputStream
from .vmcore import Header

PAGES_KEPT = 64


class NoLog(DiskError):
    """A dump has no log that can be read; the rest of it may be there."""


class Memory:
    """The memory of a crashed guest, by the headers of its vmcore.

    Args:
        disk: open for reading.
        offset: where the vmcore begins, bytes.
        header: its headers, with segments cut to what is there.
    """

    def __init__(self, disk: TargetDisk, offset: int, header: Header) -> None:
        self._disk = disk
        self._offset = offset
        self._header = header
        self._extents = header.extents()
        self._starts = [each.start for each in self._extents]
        self._page = lru_cache(maxsize=PAGES_KEPT)(self._read_page)

    def read(self, paddr: int, size: int) -> bytes:
        """Read `size` bytes at a physical address.

        Raises:
            CoreError: the dump does not have them, or the disk cannot be read there.
            DiskError: the disk cannot be read at all.
        """
        data = b""
        while len(data) < size:
            place, there = self._find(paddr + len(data))
            start = place % PAGE
            part = min(there, size - len(data), PAGE - start)
            page = self._page(place - start)
            if len(page) < start + part:
                raise CoreError(f"{self._disk.path} cannot be read at byte {place}")
            data += page[start : start + part]
        return data

    def vmcoreinfo(self) -> Vmcoreinfo:
        """Return the kernel's own description; it is empty where the dump has none.

        Raises:
            DiskError: the disk cannot be read.
        """
        raw, _ = notes.read(self._disk, self._offset, self._header)
        told = notes.Notes(raw)
        return Vmcoreinfo(lambda key: printable(told.text(key)))

    def _find(self, paddr: int) -> tuple[int, int]:
        """Return where on the disk an address is, and how many stored bytes follow."""
        number = bisect_right(self._starts, paddr) - 1
        if number >= 0 and paddr < self._extents[number].end:
            start, end, offset = self._extents[number]
            return self._offset + offset + paddr - start, end - paddr
        loads = (each for each in self._header.segments() if each.kind == elf.PT_LOAD)
        cut = any(each.paddr <= paddr < each.paddr + each.memsz for each in loads)
        why = "the dump ended before it" if cut else "the guest has no memory there"
        raise CoreError(f"the memory at {paddr:#x} is not in the dump: {why}")

    def _read_page(self, offset: int) -> bytes:
        """Return a page of the disk, b"" where it is unreadable."""
        try:
            return self._disk.read(offset, PAGE)
        except BadPlace:
            return b""


def collect(disk: TargetDisk, block: superblock.Superblock | None, out: Path | None) -> list[str]:
    """Write the log of an ELF vmcore on a target to a new file.

    Args:
        disk: open for reading.
        block: its superblock; None to take the vmcore behind it, whatever that says.
        out: of the file; None for standard output.

    Returns:
        lines on what the log lacks; none if it is whole.

    Raises:
        NoLog: there is no log to be had.
        DiskError: the target or the file cannot be used.
        TargetRefused: there is no dump to be had.
    """
    dump = source.salvaged(disk) if block is None else source.recorded(disk, block)
    memory = Memory(disk, dump.offset, dump.header)
    try:
        log = Log(memory, memory.vmcoreinfo())
    except CoreError as error:
        raise NoLog(f"the kernel's log cannot be read: {error}") from error
    with _text_output(out) as output:
        for line in log.lines():
            output.write(f"{line}\n".encode())
        doubt = source.look_again(disk, dump)
        output.publish()
    missing = [line for line in (dump.reason if block is None else "", doubt) if line]
    if log.lost:
        first = f"the first because {log.why}"
        missing.append(f"{log.lost} records of the kernel's log are missing, {first}")
    return missing


def _text_output(out: Path | None) -> OutputFile | OutputStream:
    return OutputStream(sys.stdout.fileno(), text=True) if out is None else OutputFile(out, 0)
