"""The stream of a dump on a target: its chunks, each checked, and the pages in them.

Used by collect; pvfw.chunks has the layout. The rules: nothing is believed that its check does not
prove; a chunk that is damaged is named and costs no other, because each header says where it is; a
dump that ended early has all chunks up to its end.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from pvfw import chunks, superblock
from pvfw.chunks import Header
from xenpv.text import decimal, printable

from .disk import PAGE, TargetDisk

ENTRY = struct.Struct("<Q")
RAW_ENTRY = struct.Struct(chunks.RAW_ENTRY)
RANGE = struct.Struct(chunks.RANGE)
RUN = struct.Struct(chunks.RUN)
# Frames that KDUMP's readers take, as pvfw.oldmem.ADDRESS_MAX.
PFN_MAX = 1 << 32
ONE = "a place of the dump is damaged"
NAMED = 8  # damaged chunks that are named
SCAN = 1 << 20  # bytes read at a time where chunks are looked for
FACTS_MAX = 1 << 16  # bytes of lines that are read
CAUSE_MAX = 128  # characters, as the image writes them
MANY = (1 << 32) - 1  # chunks


class Chunk(NamedTuple):
    """A chunk: its header, and its payload; of a RAW chunk the pages as well."""

    header: Header
    payload: bytes
    pages: bytes = b""


class Table(NamedTuple):
    """What a chunk says which pages it holds: its header, its place, (first frame, number) each."""

    header: Header
    at: int
    frames: list[tuple[int, int]]


class Page(NamedTuple):
    """A page, or a run of pages of zeros.

    Attributes:
        pfn: frame number of the first.
        length: pages; more than one only of zeros.
        data: of the page; b"" for zeros.
        packed: whether data is a zstd frame.
    """

    pfn: int
    length: int
    data: bytes
    packed: bool


@dataclass
class Damage:
    """What of a stream is damaged.

    Attributes:
        number: places.
        lines: what is wrong with the first ones.
    """

    number: int = 0
    lines: list[str] = field(default_factory=list)

    def add(self, line: str) -> None:
        """Count a place."""
        self.number += 1
        if self.number <= NAMED:
            self.lines.append(line)

    def reason(self) -> str:
        """Return a clause on all of it; "" where nothing is damaged."""
        if not self.number:
            return ""
        return f"{self.number} places of the dump are damaged" if self.number > 1 else ONE


class Stream:
    """The stream that a superblock tells of.

    Args:
        disk: open for reading.
        block: its superblock, of version 2.

    Attributes:
        at: where the chunk that chunks() gave last begins.
        end: bytes from the stream's start up to the end of the last whole chunk, once chunks() is
            through.
        known: bytes that the superblock says are there.
        limit: bytes that a stream there can have.
        damage: what chunks() found.
        manifest: of a whole stream; b"" until it was read.
    """

    def __init__(self, disk: TargetDisk, block: superblock.Superblock) -> None:
        self.disk = disk
        self.offset = block.data_offset
        self.dump = block.dump
        complete = block.state == superblock.COMPLETE
        self.complete = complete
        self.known = block.dump_size if complete else block.written
        self.limit = min(block.room(), max(disk.size - block.data_offset, 0))
        self.at = self.end = 0
        self.damage = Damage()
        self.manifest = b""

    def chunks(self) -> Iterator[Chunk]:
        """Read and check all chunks, in order; damaged ones are passed over and counted.

        Raises:
            DiskError: the disk cannot be read.
        """
        self.damage, self.manifest, self.end, self.at = Damage(), b"", 0, 0
        at = number = chain = lost = 0
        while at < self.limit:
            header, raw = self.header(at)
            if header is None:
                if at >= self.known:
                    break
                if not lost:
                    self.damage.add(f"no chunk at byte {at} of the stream: its header is damaged")
                lost = at = self._next(at + PAGE)
                continue
            lost = 0
            chunk = self.chunk(header, at)
            if isinstance(chunk, str):
                if at + header.length() > self.known:
                    break
                self.damage.add(f"the {chunks.NAMES[header.kind]} at byte {at}: {chunk}")
            else:
                if header.kind == chunks.MANIFEST:
                    self._check_manifest(chunk, number, chain)
                self.at = at
                yield chunk
            number += 1
            chain = zlib.crc32(raw, chain)
            at += header.length()
            self.end = at
            if header.kind == chunks.MANIFEST:
                break
        if self.complete and not self.manifest:
            self.damage.add("the manifest is missing")
        if self.disk.size < self.offset + self.known:
            self.damage.add(f"the target ends at byte {self.disk.size}; it was larger once")

    def _check_manifest(self, chunk: Chunk, number: int, chain: int) -> None:
        self.manifest = chunk.payload
        told = facts(chunk.payload)
        if told.get("chunks") != str(number) or told.get("chain") != str(chain):
            many = decimal(told.get("chunks", ""), 0, MANY)
            what = "no number of" if many is None else many
            self.damage.add(f"the manifest tells of {what} chunks, {number} were found")

    def header(self, at: int) -> tuple[Header | None, bytes]:
        """Read the header of the chunk at a place. Returns it, None for none, and its bytes."""
        raw = self._read(at, chunks.HEADER_SIZE)
        return self._decoded(raw, at), raw

    def _decoded(self, raw: bytes, at: int) -> Header | None:
        """Read the bytes of a header at a place. Returns None where they are none."""
        header: Header | None = chunks.decode(raw, self.dump, at)
        return None if header is None or at + header.length() > self.limit else header

    def chunk(self, header: Header, at: int) -> Chunk | str:
        """Read the rest of a chunk and check it. Returns it, or a clause on what is wrong."""
        raw = self._read(at, header.length())
        end = chunks.HEADER_SIZE + header.size
        payload, rest = raw[chunks.HEADER_SIZE : end], raw[end : chunks.padded(end)]
        if len(raw) < header.length():
            return "the target ends in it"
        if zlib.crc32(payload) != header.crc:
            return "its CRC is wrong"
        if rest.strip(b"\0"):
            return "there are other bytes than zeros behind it"
        pages = raw[chunks.padded(end) :] if header.kind == chunks.RAW else b""
        problem = _sizes(header)
        return problem or Chunk(header, payload, pages)

    def tables(self) -> Iterator[Table]:
        """Yield what each chunk says which pages it holds, unchecked, in order.

        Only headers and tables are read. Raises: as chunks().
        """
        at = 0
        while at < self.limit:
            header, _ = self.header(at)
            if header is None:
                if at >= self.known:
                    return
                at = self._next(at + PAGE)
                continue
            if header.kind in (chunks.PAGES, chunks.RAW) and not _sizes(header):
                start, size = chunks.HEADER_SIZE, header.size
                if header.kind == chunks.PAGES:
                    start, size = start + header.value, size - header.value
                table = self._read(at + start, size)
                if len(table) == size:
                    yield Table(header, at, list(_entries(header, table)))
            at += header.length()

    def _next(self, at: int) -> int:
        """Return the first place from `at` on where a chunk's header is, at most the known end."""
        end = min(self.known, self.limit)
        while at < end:
            raw = self._read(at, min(SCAN, end - at))
            for place in range(0, len(raw), PAGE):
                # The whole header: each place that is returned in vain is read once more.
                head = raw[place : place + chunks.HEADER_SIZE]
                if self._decoded(head, at + place) is not None:
                    return at + place
            at += SCAN
        return max(at, end)

    def _read(self, at: int, size: int) -> bytes:
        return self.disk.read_around(self.offset + at, size)[0]


def _sizes(header: Header) -> str:
    """Return a clause on what is wrong with the sizes in a header, or ""."""
    size, value, count = header.size, header.value, header.count
    wrong = {
        chunks.PAGES: value > size or size - value != count * ENTRY.size,
        chunks.RAW: size != count * RAW_ENTRY.size,
        chunks.MEMORY: size != count * RANGE.size,
        chunks.UNREADABLE: size != count * RUN.size,
    }
    return "its sizes contradict each other" if wrong.get(header.kind) else ""


def _entries(header: Header, table: bytes) -> Iterator[tuple[int, int]]:
    if header.kind == chunks.RAW:
        for pfn, _ in RAW_ENTRY.iter_unpack(table):
            if pfn < PFN_MAX:
                yield pfn, 1
    else:
        for (entry,) in ENTRY.iter_unpack(table):
            pfn, size = entry >> 32, entry & 0xFFFF
            yield pfn, 1 if size else min((entry >> 16 & 0xFFFF) + 1, PFN_MAX - pfn)


def pages(chunk: Chunk, damage: Damage) -> Iterator[Page]:
    """Yield the pages of a PAGES or RAW chunk, in order; damaged ones are counted."""
    if chunk.header.kind == chunks.RAW:
        for number, (pfn, crc) in enumerate(RAW_ENTRY.iter_unpack(chunk.payload)):
            data = chunk.pages[number * PAGE : (number + 1) * PAGE]
            if zlib.crc32(data) != crc or pfn >= PFN_MAX:
                damage.add(f"the page of frame {pfn:#x}: its CRC is wrong")
            else:
                yield Page(pfn, 1, data, False)
        return
    at, end = 0, chunk.header.value
    for (entry,) in ENTRY.iter_unpack(chunk.payload[end:]):
        pfn, size = entry >> 32, entry & 0xFFFF
        if not size:
            yield Page(pfn, min((entry >> 16 & 0xFFFF) + 1, PFN_MAX - pfn), b"", False)
            continue
        if size > PAGE or at + size > end:
            damage.add(f"the page of frame {pfn:#x}: its chunk has no {size} bytes more")
            return
        yield Page(pfn, 1, chunk.payload[at : at + size], size < PAGE)
        at += size


def ranges(chunk: Chunk) -> Iterator[tuple[int, int, int]]:
    """Yield (physical address, bytes, virtual address or 0) of a MEMORY chunk's ranges."""
    for paddr, size, vaddr in RANGE.iter_unpack(chunk.payload):
        if size and paddr + size <= PFN_MAX * PAGE:
            yield paddr, size, vaddr


def facts(text: bytes) -> dict[str, str]:
    """Return the lines KEY=VALUE of a chunk."""
    lines = text[:FACTS_MAX].decode("utf-8", "replace").split("\n")
    return dict(line.split("=", 1) for line in lines if "=" in line)


def cause(told: dict[str, str]) -> str:
    """Return why the kernel died, by what facts() returned; "" where that is not known."""
    text: str = printable(told.get("cause", "").encode()[:CAUSE_MAX], " ")
    return text
