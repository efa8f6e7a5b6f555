"""A stream made into a file that readers open: KDUMP, ELF, or the kernel's log as text.

Used by collect. The rules: all chunks are checked on the way; what is damaged is left out and
told; a page that the stream holds twice is taken once.
"""

from __future__ import annotations

import sys
from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from pvfw import chunks, config, elf, superblock
from pvfw.errors import TargetRefused
from xenpv.text import printable

from . import source
from .compression import ZSTD, Compression, unpacker
from .disk import PAGE, DiskError, TargetDisk
from .flattened import Flattened
from .frames import merged, touched
from .kdump import DESCRIPTOR, Crash, Kdump
from .meter import Progress
from .notes import SIZE_MAX, Notes
from .output import OutputFile, OutputStream
from .stream import Chunk, Damage, Page, Stream, cause, facts, pages, ranges
from .vmcore import E_FLAGS, INCOMPLETE

# Pages that a KDUMP file is made of: 128 GiB, whose descriptors take 800 MiB of memory.
PAGES_MAX = 1 << 25
RANGES_MAX = elf.PHNUM_MAX
KINDS = (chunks.PAGES, chunks.RAW)


@dataclass
class Told:
    """What a stream tells before its pages.

    Attributes:
        facts: of the crash.
        memory: (physical address, bytes, virtual address or 0) of each range of RAM.
        notes: as in a PT_NOTE.
    """

    facts: dict[str, str] = field(default_factory=dict)
    memory: list[tuple[int, int, int]] = field(default_factory=list)
    notes: bytes = b""

    @property
    def alone(self) -> bool:
        """Whether the log, the notes and the stacks are all that the dump was to have."""
        return self.facts.get("level") == str(config.LOG_ONLY)

    def take(self, chunk: Chunk) -> None:
        """Take a chunk."""
        kind = chunk.header.kind
        if kind == chunks.FACTS:
            self.facts.update(facts(chunk.payload))
        elif kind == chunks.MEMORY:
            self.memory += ranges(chunk)
            if len(self.memory) > RANGES_MAX:
                raise TargetRefused(f"the dump names more than {RANGES_MAX} ranges of memory")
        elif kind == chunks.NOTES:
            self.notes = (self.notes + chunk.payload)[:SIZE_MAX]


@dataclass(frozen=True)
class Made:
    """The result of making a file of a stream.

    Attributes:
        size: bytes of the stream.
        reason: why something is missing, or "".
        damage: a line for each damaged place.
        pages: that are in the file.
        cause: why the kernel died, as far as its log says it; "" where it does not.
        alone: as of Told.
    """

    size: int
    reason: str
    damage: list[str]
    pages: int
    cause: str
    alone: bool


def refuse(disk: TargetDisk, block: superblock.Superblock) -> str:
    """Refuse a target that holds no stream. Returns why the stream is not whole, or "".

    Raises:
        TargetRefused: it is ready for a dump.
    """
    if block.state == superblock.READY:
        more = "; `--salvage` takes the older dump behind it" if disk.has_dump() else ""
        raise TargetRefused(f"{disk.path} holds no dump: it is ready for one{more}")
    if block.state == superblock.PARTIAL:
        return block.reason or "no reason recorded"
    if block.state == superblock.WRITING:
        return "the guest is still writing, or was ended while it wrote"
    return ""


def make_kdump(
    disk: TargetDisk,
    block: superblock.Superblock,
    out: Path | None,
    progress: Progress,
    how: Compression,
) -> Made:
    """Make a KDUMP file.

    Args:
        disk: open for reading.
        block: its superblock.
        out: of the file; None for standard output.
        progress: is told the bytes of the stream.
        how: its pages are compressed.

    Raises:
        DiskError: the disk or the file cannot be used.
        TargetRefused: there is no dump to be had.
    """
    reason = refuse(disk, block)
    stream = Stream(disk, block)
    told = tell(stream)
    stored = merged((pfn, pfn + count) for pfn, count in stream.frames())
    count = sum(end - first for first, end in stored)
    if count > PAGES_MAX:
        raise TargetRefused(
            f"{disk.path}: the dump has {count} pages; at most {PAGES_MAX} are taken"
        )
    ram = merged(touched((paddr, paddr + size) for paddr, size, _ in told.memory) + stored)
    unpack = _same if how.flag == ZSTD else unpacker()
    with Flattened(stdout()) if out is None else OutputFile(out, count * DESCRIPTOR.size) as output:
        file = Kdump(output, _crash(told, block), ram, stored, how)
        for page in _pages(stream, progress):
            if not file.announced(page.pfn, page.length):
                stream.damage.add(f"the page of frame {page.pfn:#x} is not where it was before")
            elif not page.data:
                file.zeros(page.pfn, page.length)
            elif page.packed and how.flag == ZSTD:
                file.stored(page.pfn, page.data, ZSTD)
            else:
                file.raw(page.pfn, _unpacked(page, unpack, stream.damage))
        made = _made(stream, told, disk, block, reason, count - file.left_out)
        file.finish(bool(made.reason) or made.alone)
        output.publish()
    return made


def make_elf(
    disk: TargetDisk, block: superblock.Superblock, out: Path | None, progress: Progress
) -> Made:
    """Make an ELF vmcore, with holes where no page is. Args, Raises: as make_kdump()."""
    if out is None:
        raise DiskError("an ELF vmcore is not written in order: name a file, or use --format kdump")
    reason = refuse(disk, block)
    stream = Stream(disk, block)
    told = tell(stream)
    unpack = unpacker()
    layout = Layout(told)
    with OutputFile(out, block.written) as output:
        count = 0
        for page in _pages(stream, progress):
            data = _unpacked(page, unpack, stream.damage) if page.data else b""
            for number in range(page.length):
                place = layout.place(page.pfn + number)
                if place is None:
                    stream.damage.add(f"frame {page.pfn + number:#x} is no memory")
                    break
                if data:
                    output.put(place, data)
            count += page.length
        made = _made(stream, told, disk, block, reason, count)
        output.put(0, layout.header(bool(made.reason) or made.alone))
        output.extend(layout.end)
        output.publish()
    return made


class Layout:
    """The place of everything in an ELF vmcore: headers, notes, then the frames of RAM in order."""

    def __init__(self, told: Told) -> None:
        self._told = told
        phnum = 1 + len(told.memory)
        self._notes = elf.EHDR_SIZE + phnum * elf.PHDR_SIZE
        self._data = chunks.padded(self._notes + len(told.notes))
        self._frames = merged(touched((p, p + size) for p, size, _ in told.memory))
        self._firsts = [first for first, _ in self._frames]
        self._ranks = []
        self.end = self._data
        for first, end in self._frames:
            self._ranks.append(self.end)
            self.end += (end - first) * PAGE

    def place(self, pfn: int) -> int | None:
        """Return where a frame's bytes are in the file; None where it is no memory."""
        number = bisect_right(self._firsts, pfn) - 1
        if number < 0 or pfn >= self._frames[number][1]:
            return None
        return self._ranks[number] + (pfn - self._firsts[number]) * PAGE

    def header(self, incomplete: bool) -> bytes:
        """Return the headers and the notes."""
        memory = self._told.memory
        raw = bytearray(elf.core_header(1 + len(memory)))
        if incomplete:
            raw[E_FLAGS] |= INCOMPLETE
        raw += elf.program_header(elf.PT_NOTE, self._notes, 0, 0, len(self._told.notes))
        for paddr, size, vaddr in memory:
            at = (self.place(paddr // PAGE) or 0) + paddr % PAGE
            raw += elf.program_header(elf.PT_LOAD, at, vaddr, paddr, size)
        return bytes(raw + self._told.notes)


def write_log(disk: TargetDisk, block: superblock.Superblock, out: Path | None) -> list[str]:
    """Write the kernel's log to a new file.

    Args:
        out: of the file; None for standard output.

    Returns:
        lines on what the log lacks; none if it is whole.

    Raises: as make_kdump().
    """
    reason = refuse(disk, block)
    stream = Stream(disk, block)
    found, began = False, False
    with stdout(True) if out is None else OutputFile(out, 0) as output:
        for chunk in stream.chunks():
            if chunk.header.kind == chunks.LOG:
                output.write(chunk.payload)
                found = True
            began = began or chunk.header.kind in KINDS
            if began:
                break
        if not found:
            raise DiskError(
                f"{disk.path}: the dump has no log as text; collect the vmcore without --log"
            )
        doubt = source.unchanged(disk, block)
        output.publish()
    missing = list(stream.damage.lines)
    if not began and reason:
        missing.append(reason)
    return missing + ([doubt] if doubt else [])


def stdout(text: bool = False) -> OutputStream:
    """Return standard output. text: whether a terminal may have it."""
    return OutputStream(sys.stdout.fileno(), text=text)


def tell(stream: Stream) -> Told:
    """Read what a stream tells before its pages. Raises: as Stream.chunks()."""
    told = Told()
    for chunk in stream.chunks():
        if chunk.header.kind in KINDS:
            break
        told.take(chunk)
    return told


def _pages(stream: Stream, progress: Progress) -> Iterator[Page]:
    progress.expect(stream.known)
    done = 0
    for chunk in stream.chunks():
        if chunk.header.kind in KINDS:
            yield from pages(chunk, stream.damage)
        progress.advance(stream.end - done)
        done = stream.end


def _unpacked(page: Page, unpack: Callable[[bytes], bytes], damage: Damage) -> bytes:
    """Return the PAGE bytes of a page; zeros, and it is counted, where they cannot be had."""
    if not page.packed:
        return page.data
    try:
        data = unpack(page.data)
    except ValueError as error:
        damage.add(f"the page of frame {page.pfn:#x}: {error}")
        return bytes(PAGE)
    return data


def _same(data: bytes) -> bytes:
    return data


def _made(
    stream: Stream,
    told: Told,
    disk: TargetDisk,
    block: superblock.Superblock,
    reason: str,
    count: int,
) -> Made:
    damage = stream.damage
    if damage.number and not reason:
        reason = f"{damage.number} places of the dump are damaged"
    reason = reason or source.unchanged(disk, block)
    return Made(stream.end, reason, damage.lines, count, cause(told.facts), told.alone)


def _crash(told: Told, block: superblock.Superblock) -> Crash:
    """Return what a KDUMP file's headers tell of the crash."""
    notes = Notes(told.notes)
    release = printable(notes.text("OSRELEASE")) or block.release
    known = block.crash_vcpu != superblock.UNKNOWN_VCPU
    when = notes.number("CRASHTIME") or min(block.started, (1 << 63) - 1)
    return Crash(notes, release, when, block.crash_vcpu if known else 0)
