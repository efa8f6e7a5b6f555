"""The crashed kernel's log in the vmcore on a target, as text.

Used by collect. The rules: of the dump only the headers, the notes and the pages that the log lies
in are read, so this takes as long for a large guest as for a small one; the guest may have written
anything there, so pvfw.printk checks all of it; a record that is missing or damaged costs only
itself, and is told.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from pvfw import elf
from pvfw.errors import CoreError
from pvfw.printk import Log
from pvfw.vmcoreinfo import Vmcoreinfo
from xenpv.text import printable

from . import disk as disks
from . import source
from .disk import PAGE, BadPlace, DiskError, TargetDisk
from .notes import SIZE_MAX, Notes
from .output import OutputFile

EHDR = struct.Struct(elf.EHDR)
PHDR = struct.Struct(elf.PHDR)
PAGES_KEPT = 64


class _Extent(NamedTuple):
    """Physical addresses of memory, where in the vmcore they begin, and where those there end."""

    start: int
    end: int
    offset: int
    stored_end: int


class Memory:
    """The memory of a crashed guest, by the headers of its vmcore.

    Args:
        disk: open for reading.
        offset: where the vmcore begins, bytes.
        header: its ELF and program headers, with segments cut to what is there.
    """

    def __init__(self, disk: TargetDisk, offset: int, header: bytes) -> None:
        self._disk = disk
        self._offset = offset
        segments = [PHDR.unpack_from(header, at) for at in range(EHDR.size, len(header), PHDR.size)]
        self._extents = _extents(segments)
        self._starts = [each.start for each in self._extents]
        notes = [(fields[2], fields[5]) for fields in segments if fields[0] == elf.PT_NOTE]
        # The image writes one PT_NOTE; further ones are not looked at.
        self._notes = notes[0] if notes else (0, 0)
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
        offset, size = self._notes
        raw, _ = self._disk.read_around(self._offset + offset, min(size, SIZE_MAX))
        notes = Notes(raw)
        return Vmcoreinfo(lambda key: printable(notes.text(key)))

    def _find(self, paddr: int) -> tuple[int, int]:
        """Return where on the disk an address is, and how many bytes of its segment follow."""
        number = bisect_right(self._starts, paddr) - 1
        found = self._extents[number] if number >= 0 else _Extent(0, 0, 0, 0)
        if paddr < found.stored_end:
            return self._offset + found.offset + paddr - found.start, found.stored_end - paddr
        why = "the dump ended before it" if paddr < found.end else "the guest has no memory there"
        raise CoreError(f"the memory at {paddr:#x} is not in the dump: {why}")

    def _read_page(self, offset: int) -> bytes:
        """Return a page of the disk, b"" where it is unreadable."""
        try:
            return self._disk.read(offset, PAGE)
        except BadPlace:
            return b""


def _extents(segments: list[tuple[int, ...]]) -> list[_Extent]:
    """Return the memory that program headers name, in order; an address is in one of them."""
    found = []
    end = 0
    loads = [fields for fields in segments if fields[0] == elf.PT_LOAD]
    for _, _, offset, _, paddr, filesz, memsz, _ in sorted(loads, key=lambda fields: fields[4]):
        start = max(paddr, end)
        end = max(end, paddr + memsz)
        if start < end:
            found.append(_Extent(start, end, offset + start - paddr, min(paddr + filesz, end)))
    return found


def collect(path: Path, out: Path | None, salvage: bool) -> list[str]:
    """Write the log of the dump on a target to a new file.

    Args:
        path: of the target.
        out: of the file; None for standard output.
        salvage: take the vmcore behind the superblock, whatever that says.

    Returns:
        lines on what the log lacks; none if it is whole.

    Raises:
        DiskError: there is no log to be had, or the target or the file cannot be used.
        TargetRefused: there is no dump to be had.
    """
    with disks.reading(path) as disk:
        dump = source.salvaged(disk) if salvage else source.recorded(disk)
        memory = Memory(disk, dump.offset, bytes(dump.header))
        try:
            log = Log(memory, memory.vmcoreinfo())
        except CoreError as error:
            raise DiskError(
                f"the kernel's log cannot be read, collect the vmcore without --log: {error}"
            ) from error
        if out is None:
            for line in log.lines():
                print(line)
            doubt = source.look_again(disk, dump)
        else:
            with OutputFile(out, 0) as output:
                for line in log.lines():
                    output.write(f"{line}\n".encode())
                doubt = source.look_again(disk, dump)
                output.publish()
    missing = [line for line in (dump.reason if salvage else "", doubt) if line]
    if log.lost:
        first = f"the first because {log.why}"
        missing.append(f"{log.lost} records of the kernel's log are missing, {first}")
    return missing
