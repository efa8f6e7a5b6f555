"""A KDUMP file, version 6, for x86-64: the compressed dump that crash, drgn and makedumpfile read.

Used by collect. It is given pages in any order; they go into the file in that order, and what says
where they are (page descriptors, bitmaps, headers) is written at the end. The rules: a page that
was not given is left out, as an excluded one is, and the file is then marked incomplete; in memory
are a descriptor for each page that may come, and BUFFER bytes of pages, whatever the RAM.

    block 0    header
    block 1    sub header, then the notes
    then       bitmap 1: frames that are memory; bitmap 2: frames whose pages are in the file
    then       a descriptor for each bit of bitmap 2; room for all that were announced
    then       the pages

Source: makedumpfile IMPLEMENTATION and diskdump_mod.h; crash diskdump.c.
"""

from __future__ import annotations

import struct
from array import array
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from . import bitmap
from .compression import Compression
from .disk import MIB, PAGE
from .notes import Notes

# Signature, version, utsname, time stamp, status, block size, blocks of the sub header and of both
# bitmaps, max_mapnr, total_ram, device and written blocks (unused), crashed CPU, CPUs.
HEADER = struct.Struct("<8sI65s65s65s65s65s65s6xqqIiiIIIIIIi")
# phys_base, dump level, split (three fields), VMCOREINFO, notes, eraseinfo (offset and size each),
# start and end of the split, max_mapnr.
SUB_HEADER = struct.Struct("<qii2Q2Q2Q2Q2QQ")
DESCRIPTOR = struct.Struct("<QIIQ")  # offset, size, flags, page flags
VERSION = 6
INCOMPLETE = 0x8  # of the header's status
BUFFER = MIB
ZEROS = bytes(PAGE)
# Of the release and version in utsname: libkdumpfile, which drgn uses, takes no empty ones.
UNKNOWN = b"unknown"


class Output(Protocol):
    """A file that is written in any order, each byte at most once."""

    def put(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        """Write data at an offset."""


@dataclass(frozen=True)
class Crash:
    """A crash, as the headers tell of it.

    Attributes:
        notes: of the vmcore.
        release: of the kernel.
        time: of the crash, seconds since 1970, UTC.
        cpu: that crashed, 0 if that is not known.
    """

    notes: Notes
    release: str
    time: int
    cpu: int


class Kdump:
    """A KDUMP file in the making.

    Args:
        output: where it goes.
        crash: what its headers tell.
        ram: the frames that are memory: (first, end) of each range, in order, without overlaps.
        pages: those of them that will be given, likewise.
        compression: for pages that are given as they are.

    Attributes:
        left_out: frames of `pages` that were not given; right after finish().
    """

    def __init__(
        self,
        output: Output,
        crash: Crash,
        ram: list[tuple[int, int]],
        pages: Sequence[tuple[int, int]],
        compression: Compression,
    ) -> None:
        self._output = output
        self._crash = crash
        self._ram = ram
        self._pages = pages
        self._compression = compression
        self._max_mapnr = max((end for _, end in ram), default=0)
        self._sub_blocks = -(-(SUB_HEADER.size + len(crash.notes.raw)) // PAGE)
        self._bitmap_blocks = bitmap.blocks(self._max_mapnr)  # of one
        self._firsts = array("Q", (first for first, _ in pages))
        self._ends = array("Q", (end for _, end in pages))
        self._ranks = array("Q")  # the number of the first descriptor of each range
        count = 0
        for first, end in pages:
            self._ranks.append(count)
            count += end - first
        self._table = bytearray(count * DESCRIPTOR.size)
        self._given = 0
        self._table_at = (1 + self._sub_blocks + 2 * self._bitmap_blocks) * PAGE
        self._at = self._table_at + len(self._table)
        self._buffer = bytearray()
        self._zeros = 0  # offset of the page of zeros, once there is one

    @property
    def left_out(self) -> int:
        """Frames that were announced and have not been given."""
        return len(self._table) // DESCRIPTOR.size - self._given

    def announced(self, first: int, count: int = 1) -> bool:
        """Tell whether all of these pages were announced."""
        number = bisect_right(self._firsts, first) - 1
        return number >= 0 and first + count <= self._ends[number]

    def raw(self, first: int, data: bytes | memoryview) -> None:
        """Take the pages of frames that follow each other, and compress them.

        Args:
            first: the first frame.
            data: the pages.

        Raises: as `output`.
        """
        pack, flag = self._compression.pack, self._compression.flag
        for pfn, at in enumerate(range(0, len(data), PAGE), first):
            page = bytes(data[at : at + PAGE])
            if page == ZEROS:
                self.zeros(pfn)
                continue
            packed = pack(page)
            if len(packed) < PAGE:
                self.stored(pfn, packed, flag)
            else:
                self.stored(pfn, page, 0)

    def zeros(self, first: int, count: int = 1) -> None:
        """Take pages of zeros, which all share one page of the file. Raises: as `output`."""
        if not self._zeros:
            self._zeros = self._append(ZEROS)
        begin = self._descriptor(first, count)
        end = begin + count * DESCRIPTOR.size
        if self._table.count(0, begin, end) == end - begin:
            self._given += count
            self._table[begin:end] = DESCRIPTOR.pack(self._zeros, PAGE, 0, 0) * count
            return
        for pfn in range(first, first + count):
            self._describe(pfn, self._zeros, PAGE, 0)

    def stored(self, pfn: int, data: bytes | memoryview, flag: int) -> None:
        """Take a page as it is to stand in the file.

        Args:
            pfn: its frame.
            data: of it.
            flag: compression.ZSTD or ZLIB if it is compressed, 0 if it is not.

        Raises: as `output`.
        """
        self._describe(pfn, self._append(data), len(data), flag)

    def finish(self, incomplete: bool) -> None:
        """Write all but the pages. Raises: as `output`.

        Args:
            incomplete: whether something is missing beside the pages that were not given.
        """
        self._flush()
        memory = bitmap.bits(self._ram, self._max_mapnr)
        given = bitmap.bits(self._pages, self._max_mapnr)
        missing = (pfn for pfn, _ in self._missing())
        for number, pieces in enumerate((memory, bitmap.without(given, missing))):
            at = (1 + self._sub_blocks + number * self._bitmap_blocks) * PAGE
            for piece in pieces:
                self._output.put(at, piece)
                at += len(piece)
        self._put_table()
        self._put_headers(incomplete or self.left_out > 0)

    def _descriptor(self, pfn: int, count: int = 1) -> int:
        """Return where in the table the descriptors of frames begin."""
        number = bisect_right(self._firsts, pfn) - 1
        is_there = self._firsts[number] <= pfn and pfn + count <= self._ends[number]
        assert is_there, "this page was not announced"
        return (self._ranks[number] + pfn - self._firsts[number]) * DESCRIPTOR.size

    def _describe(self, pfn: int, offset: int, size: int, flag: int) -> None:
        at = self._descriptor(pfn)
        # Each page counts once, however often it is given.
        self._given += DESCRIPTOR.unpack_from(self._table, at)[1] == 0
        DESCRIPTOR.pack_into(self._table, at, offset, size, flag, 0)

    def _append(self, data: bytes | memoryview) -> int:
        """Append to the pages. Returns the offset."""
        if len(self._buffer) + len(data) > BUFFER:
            self._flush()
        offset = self._at + len(self._buffer)
        self._buffer += data
        return offset

    def _flush(self) -> None:
        self._output.put(self._at, bytes(self._buffer))
        self._at += len(self._buffer)
        self._buffer.clear()

    def _missing(self) -> Iterator[tuple[int, int]]:
        """Yield (frame, number of its descriptor) of each page that was not given."""
        if not self.left_out:
            return
        with memoryview(self._table) as table, table.cast("I") as words:
            sizes = words[2 :: DESCRIPTOR.size // 4]
            for rank, (first, end) in zip(self._ranks, self._pages):
                for number in range(end - first):
                    if not sizes[rank + number]:
                        yield first + number, rank + number

    def _put_table(self) -> None:
        """Write the descriptors that are used, moved together."""
        with memoryview(self._table) as table:
            kept = begin = 0
            for _, rank in self._missing():
                kept = _move(table, kept, begin, rank * DESCRIPTOR.size)
                begin = (rank + 1) * DESCRIPTOR.size
            kept = _move(table, kept, begin, len(table))
            for at in range(0, kept, BUFFER):
                self._output.put(self._table_at + at, table[at : min(at + BUFFER, kept)])

    def _put_headers(self, incomplete: bool) -> None:
        notes = self._crash.notes
        offset, size = notes.vmcoreinfo
        place = PAGE + SUB_HEADER.size
        sub_header = SUB_HEADER.pack(
            notes.number("NUMBER(phys_base)"),
            *(0, 0, 0, 0),
            *((place + offset, size) if size else (0, 0)),
            *((place, len(notes.raw)) if notes.raw else (0, 0)),
            *(0, 0, 0, 0),
            self._max_mapnr,
        )
        header = HEADER.pack(
            b"KDUMP   ",
            VERSION,
            *(b"Linux", b"", self._crash.release.encode()[:64] or UNKNOWN, UNKNOWN),
            *(b"x86_64", b""),
            *(self._crash.time, 0),
            self._compression.flag | (INCOMPLETE if incomplete else 0),
            *(PAGE, self._sub_blocks, 2 * self._bitmap_blocks),
            *(min(self._max_mapnr, 0xFFFFFFFF), 0, 0, 0),
            *(self._crash.cpu, max(notes.cpus, 1)),
        )
        self._output.put(0, header.ljust(PAGE, b"\0"))
        whole = sub_header + notes.raw
        self._output.put(PAGE, whole.ljust(self._sub_blocks * PAGE, b"\0"))


def _move(table: memoryview, kept: int, begin: int, end: int) -> int:
    """Move a part of a table down to `kept`. Returns the end of what is kept then."""
    if kept != begin:
        table[kept : kept + end - begin] = table[begin:end]
    return kept + end - begin
