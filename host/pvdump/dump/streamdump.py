"""A stream made into a file that readers open: KDUMP or ELF.

Used by collect. The rules: all chunks are checked on the way; what is damaged is left out and
told; a page that the stream holds twice is taken once.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from pvfw import chunks, superblock
from pvfw.errors import TargetRefused

from . import prelude, source
from .compression import ZSTD, Compression, unpacker
from .disk import PAGE, TargetDisk
from .elflayout import Layout
from .flattened import Flattened
from .frames import merged, touched
from .inorder import InOrder
from .kdump import DESCRIPTOR, Kdump
from .meter import Progress
from .output import OutputFile, OutputStream
from .pageruns import Runs, TooMany, TooScattered, stored
from .stream import Damage, Page, Stream, cause, pages

# Pages that a KDUMP file is made of: 128 GiB, whose descriptors take 800 MiB of memory.
PAGES_MAX = 1 << 25
# Pages that are put in order with as much memory.
IN_ORDER_MAX = 3 * PAGES_MAX


@dataclass(frozen=True)
class Made:
    """The result of making a file of a stream.

    Attributes:
        size: bytes of the stream.
        reason: why something is missing, or "".
        damage: a line for each damaged place.
        pages: that are in the file.
        cause: why the kernel died, as far as its log says it; "" where it does not.
        alone: as of prelude.Told.
        marked: whether the file tells of the reason.
    """

    size: int
    reason: str
    damage: list[str]
    pages: int
    cause: str = ""
    alone: bool = False
    marked: bool = False


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
    reason = prelude.refuse(disk, block)
    stream = Stream(disk, block)
    told = prelude.tell(stream, reason)
    memory = merged(touched((paddr, paddr + size) for paddr, size, _ in told.memory))
    announced, outside = _stored(
        stream, memory, PAGES_MAX, "use --format elf OUT, which has no limit"
    )
    ram, count = merged(memory + outside), announced.frames
    unpack = _same if how.flag == ZSTD else unpacker()
    with Flattened(stdout()) if out is None else OutputFile(out, count * DESCRIPTOR.size) as output:
        file = Kdump(output, prelude.crash(told, block), ram, announced, how)
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
    reason = prelude.refuse(disk, block)
    stream = Stream(disk, block)
    told = prelude.tell(stream, reason)
    unpack = unpacker()
    layout = Layout(disk.path, told.memory, told.notes)
    if out is None:
        return _send_elf(stream, block, told, layout, reason, progress)
    with OutputFile(out, min(block.written, stream.limit)) as output:
        count = 0
        for page in _pages(stream, progress):
            place = layout.place(page.pfn, page.length)
            if place is None:
                stream.damage.add(f"frame {page.pfn:#x} is no memory")
                continue
            if page.data:
                output.put(place, _unpacked(page, unpack, stream.damage))
            count += page.length
        made = _made(stream, told, disk, block, reason, count)
        output.put(0, layout.header(bool(made.reason) or made.alone))
        output.extend(layout.end)
        output.publish()
    return made


def _send_elf(
    stream: Stream,
    block: superblock.Superblock,
    told: prelude.Told,
    layout: Layout,
    reason: str,
    progress: Progress,
) -> Made:
    """Write an ELF vmcore to standard output: all is checked before its first byte."""
    output, unpack = stdout(), unpacker()
    runs, _ = _stored(stream, layout.frames, IN_ORDER_MAX, "name a file instead of -")
    places = InOrder(stream, runs, lambda page: _unpacked(page, unpack, stream.damage))
    count = 0
    for page in _pages(stream, progress):
        if layout.place(page.pfn, page.length) is None or not places.note(page, stream.at):
            stream.damage.add(f"frame {page.pfn:#x} is no memory")
        else:
            count += page.length
    made = _made(stream, told, stream.disk, block, reason, count)
    marked = bool(made.reason)
    header = layout.header(marked or made.alone)
    progress.expect(stream.known + layout.end)
    output.write(header.ljust(chunks.padded(len(header)), b"\0"))
    for piece in places.read(layout.frames):
        output.write(piece)
        progress.advance(len(piece))
    output.publish()
    return replace(_made(stream, told, stream.disk, block, reason, count), marked=marked)


def _stored(
    stream: Stream, memory: list[tuple[int, int]], most: int, instead: str
) -> tuple[Runs, list[tuple[int, int]]]:
    """Do as pageruns.stored(); say for too many pages what can be done instead."""
    try:
        return stored(stream, memory, most, prelude.RANGES_MAX)
    except TooScattered as error:
        raise TargetRefused(
            f"{stream.disk.path}: the dump has pages in more than {prelude.RANGES_MAX} ranges that "
            "it does not name as memory"
        ) from error
    except TooMany as error:
        raise TargetRefused(
            f"{stream.disk.path}: the dump has {error.number} pages or more, and at most {most} "
            f"are taken here: {instead}"
        ) from error


def stdout(text: bool = False) -> OutputStream:
    """Return standard output. text: whether a terminal may have it."""
    return OutputStream(sys.stdout.fileno(), text=text)


def _pages(stream: Stream, progress: Progress) -> Iterator[Page]:
    progress.expect(stream.known)
    done = 0
    for chunk in stream.chunks():
        if chunk.header.kind in prelude.KINDS:
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
    told: prelude.Told,
    disk: TargetDisk,
    block: superblock.Superblock,
    reason: str,
    count: int,
) -> Made:
    damage = stream.damage
    reason = reason or damage.reason()
    if reason and stream.manifest and not damage.number:
        reason += "; all that was to be in it is there all the same"
    reason = reason or source.unchanged(disk, block)
    return Made(
        stream.end, reason, damage.lines, count, cause(told.facts), told.alone, bool(reason)
    )
