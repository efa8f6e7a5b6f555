"""`pvdump estimate`: what a dump of this guest would take now, at each level.

Called by the command line, by arm for the room of a target, by setup for the size of one. The pages
are counted by their class, as /proc/kpageflags has it and the image's filter would judge (16 free,
8 user, 2 and 4 page cache, 1 zeros); a sample of each class is read from /proc/kcore and compressed
page by page, as the image does. The rule: what cannot be told counts as kept.
Source: Linux Documentation/admin-guide/mm/pagemap.rst, fs/proc/page.c; docs/filter.md.
"""

from __future__ import annotations

import argparse
import array
import ctypes
import json
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from pvfw import chunks, config
from pvfw.superblock import MIB

from ..guest import record
from . import memory, settings
from .memory import Kcore, MemoryUnknown

PAGE = 4096
KPAGEFLAGS = Path("proc/kpageflags")
AT_ONCE = 1 << 15  # pages whose flags are read in one call
SAMPLE = 1024  # pages of a class at least, if it has as many, and twice as many at most
# Of zlib's level 1, which the standard library has: the image's zstd made 0.99 of its size of 9,626
# pages of a dump of Linux 6.1.
ZLIB_LEVEL, ZSTD_TO_ZLIB = 1, 0.99
# In a chunk of pages: the buffer of the image, and what a header and the zeros behind it cost.
CHUNK, CHUNK_EXTRA = 32 * PAGE, chunks.HEADER_SIZE + PAGE // 2
ENTRY = 8  # bytes of the table, a page
# Facts, ranges of memory, notes, index and manifest: chunks of a page or two.
FIXED = 6 * PAGE
STACK = PAGE  # of a CPU, compressed
# The log's text, as it stands in chunks of 8 KiB; the panic itself adds some of it.
LOG_CHUNK, LOG_PAGES = 8 << 10, 3
PANIC = 4 << 10
LOG_MIN = 32 << 10  # bytes, where the kernel does not tell
SYSLOG_READ_ALL, SYSLOG_SIZE = 3, 10

# Bits of /proc/kpageflags.
LRU, ANON, SWAPCACHE, SWAPBACKED, BUDDY, TAIL, HUGE = (1 << n for n in (5, 12, 13, 14, 10, 16, 17))
HWPOISON, NOPAGE, THP, OFFLINE, PRIVATE = (1 << n for n in (19, 20, 22, 23, 35))

KERNEL, CACHE, PRIVATE_CACHE, USER, FREE, GONE = CLASSES = (
    "kernel",
    "cache",
    "private cache",
    "user",
    "free",
    "gone",
)
# What a level leaves out; pages that are gone, given back or poisoned, at any.
LEFT_OUT = {CACHE: 2 | 4, PRIVATE_CACHE: 4, USER: 8, FREE: 16}
ZEROS = 1
SHOWN = (0, 1, 17, 31)

DESCRIPTION = """\
Tell what a dump of this guest would take now, at some levels and at the configured one. The sizes
are those of what the image writes to a target, from the classes of all pages and a compressed
sample of them. As root."""


class Content(NamedTuple):
    """What the pages of a class hold.

    Attributes:
        pages: number of them.
        zero: share of those that are zeros, 0 to 1.
        size: bytes of a compressed page of the others, on average.
    """

    pages: int
    zero: float
    size: float


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.description = DESCRIPTION
    parser.add_argument("--json", action="store_true", help="print JSON, sizes in bytes")
    settings.add_file(parser)


def run(options: argparse.Namespace) -> int:
    """Run the command. Returns the exit code."""
    wanted = settings.settled(options)
    root = record.ROOT
    contents = survey(root)
    levels = sorted({*SHOWN, config.LOG_ONLY, wanted["level"]})
    sizes = {level: size(contents, level, wanted["compress"]) for level in levels}
    if options.json:
        print(json.dumps({level_name(level): sizes[level] for level in levels}))
        return 0
    for level in levels:
        mark = "  configured" if level == wanted["level"] else ""
        print(f"level {level_name(level):>3}  {sizes[level] / MIB:10.1f} MiB{mark}")
    for name, content in contents.items():
        zeros = f"{100 * content.zero:3.0f} % zeros"
        print(f"{name:13}  {content.pages * PAGE / MIB:8.1f} MiB of memory, {zeros}")
    return 0


def level_name(level: int) -> str:
    """Return a level as the settings have it."""
    return settings.LOG_ONLY if level == config.LOG_ONLY else str(level)


def estimate(level: int, compress: str = "zstd", root: Path = Path("/")) -> int:
    """Return the bytes that a dump would take on a target now.

    Args:
        level: 0 to 31, or config.LOG_ONLY.
        compress: one of config.ALGORITHMS.
        root: of the system.

    Raises:
        MemoryUnknown: the kernel does not tell of its pages.
    """
    return size(survey(root), level, compress)


def size(contents: dict[str, Content], level: int, compress: str) -> int:
    """Return the bytes that a dump of such contents would take, as estimate()."""
    logged = (_log() + PANIC) / LOG_CHUNK * LOG_PAGES * PAGE
    extra = FIXED + int(logged) + (os.cpu_count() or 1) * STACK
    if level == config.LOG_ONLY:
        return extra
    total = 0.0
    for name, content in contents.items():
        if name == GONE or level & LEFT_OUT.get(name, 0):
            continue
        zeros = content.pages * content.zero
        others = content.pages - zeros
        if compress == "none":
            # Pages of zeros are not looked for.
            total += content.pages * PAGE
        else:
            total += others * (content.size + ENTRY)
    if compress != "none":
        total += total / CHUNK * CHUNK_EXTRA
    return int(total) + extra


def _log() -> int:
    """Return the bytes of the kernel's log."""
    try:
        libc = ctypes.CDLL(None)
        room = libc.klogctl(SYSLOG_SIZE, None, 0)
        if room <= 0:
            return LOG_MIN
        text = libc.klogctl(SYSLOG_READ_ALL, ctypes.create_string_buffer(room), room)
    except (OSError, AttributeError):
        return LOG_MIN
    return max(int(text), 0) or LOG_MIN


def survey(root: Path) -> dict[str, Content]:
    """Count all pages by their class, and look at a sample of each.

    Raises:
        MemoryUnknown: the kernel does not tell of its pages.
    """
    counts = dict.fromkeys(CLASSES, 0)
    samples = {name: Sample() for name in CLASSES}
    for pfn, name, run in _runs(root):
        counts[name] += run
        samples[name].add(pfn, run)
    with Kcore(root) as kcore:
        return {
            name: _content(kcore, counts[name], [] if name == GONE else samples[name].pfns)
            for name in CLASSES
        }


class Sample:
    """Frames of a class, evenly among all of it; every frame at first, fewer the more there are."""

    def __init__(self) -> None:
        self.pfns: list[int] = []
        self._every = 1
        self._skip = 0  # frames that are passed over before the next one

    def add(self, pfn: int, count: int) -> None:
        """Take the next frames of the class."""
        while self._skip < count:
            self.pfns.append(pfn + self._skip)
            self._skip += self._every
            if len(self.pfns) == 2 * SAMPLE:
                del self.pfns[1::2]
                self._every *= 2
        self._skip -= count


def _runs(root: Path) -> Iterator[tuple[int, str, int]]:
    """Give the runs of frames of one class: first frame, class, number."""
    path = root / KPAGEFLAGS
    ranges = memory.ranges(root).dumped()
    classes: dict[int, str] = {}
    try:
        with path.open("rb", buffering=0) as stream:
            for begin, end in ranges:
                pfn, last = -(-begin // PAGE), end // PAGE
                head = KERNEL
                while pfn < last:
                    stream.seek(pfn * 8)
                    raw = stream.read(min(AT_ONCE, last - pfn) * 8)
                    flags = array.array("Q", raw[: len(raw) // 8 * 8])
                    if not flags:
                        break  # struct pages end before the range does
                    first, before = 0, None
                    for at, value in enumerate(flags):
                        if value != before:
                            if before is not None:
                                yield pfn + first, head, at - first
                            first, before = at, value
                            if value not in classes:
                                classes[value] = _class(value)
                            head = classes[value] or head
                    yield pfn + first, head, len(flags) - first
                    pfn += len(flags)
    except OSError as error:
        raise MemoryUnknown(f"{path}: {error.strerror}") from error


def _class(flags: int) -> str:
    """Return the class of a page; "" for that of the page before, whose tail it is."""
    if flags & (NOPAGE | HWPOISON | OFFLINE):
        return GONE
    if flags & BUDDY:
        return FREE
    if flags & (ANON | HUGE):
        return USER
    if flags & LRU or flags & (SWAPCACHE | SWAPBACKED) == SWAPCACHE | SWAPBACKED:
        return PRIVATE_CACHE if flags & PRIVATE else CACHE
    # Up to Linux 6.8 tails have the flags of no other page but the anonymous ones.
    return "" if flags & TAIL else KERNEL


def _content(kcore: Kcore, pages: int, pfns: list[int]) -> Content:
    """Look at a sample of a class."""
    sizes = []
    zeros = 0
    for pfn in pfns:
        try:
            page = kcore.read(pfn * PAGE, PAGE)
        except MemoryUnknown:
            continue  # given back, or changed, meanwhile
        if not page.strip(b"\0"):
            zeros += 1
        else:
            sizes.append(min(len(zlib.compress(page, ZLIB_LEVEL)) * ZSTD_TO_ZLIB, PAGE))
    looked = zeros + len(sizes)
    if not looked:
        return Content(pages, 0.0, PAGE)
    return Content(pages, zeros / looked, sum(sizes) / len(sizes) if sizes else PAGE)
