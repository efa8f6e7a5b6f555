"""The pages of a stream in the order of their frames, for an ELF vmcore on standard output.

Used by collect. A stream has its pages in an order of its own, so a first pass notes the chunk of
each, and a second one reads the chunks as their pages are due. The rules: memory is 8 bytes a page,
and CACHED pages that are read already; a chunk is checked each time it is read.
"""

from __future__ import annotations

from array import array
from collections import OrderedDict
from collections.abc import Callable, Iterator

from pvfw.errors import TargetRefused

from .disk import MIB, PAGE
from .pageruns import Runs
from .stream import Page, Stream, pages

CACHED = 16384
# How often a stream's bytes may be read; an order in which chunks are due again and again is none
# that an image writes.
AGAIN = 8
ZEROS = bytes(256 * PAGE)


class InOrder:
    """The pages of a stream.

    Args:
        stream: the stream.
        runs: the frames whose pages it holds.
        unpack: returns the PAGE bytes of a Page with data.
    """

    def __init__(self, stream: Stream, runs: Runs, unpack: Callable[[Page], bytes]) -> None:
        self._stream = stream
        self._runs = runs
        self._unpack = unpack
        # Of each frame where its chunk begins, in pages, plus 1; 0: the page is zeros or missing.
        self._chunks = array("Q", (0,)) * runs.frames
        self._cache: OrderedDict[int, dict[int, Page]] = OrderedDict()
        self._cached = self._read_bytes = 0

    def note(self, page: Page, at: int) -> bool:
        """Note where a page is.

        Args:
            page: the page, or pages of zeros.
            at: where its chunk begins, bytes of the stream.

        Returns: whether the frame is one of those announced.
        """
        rank = self._runs.rank(page.pfn, page.length)
        if rank >= 0 and page.data:
            self._chunks[rank] = at // PAGE + 1
        return rank >= 0

    def read(self, ram: list[tuple[int, int]]) -> Iterator[bytes]:
        """Yield the bytes of frames in order, zeros where there is no page.

        Args:
            ram: the frames, (first, end) in order, without overlaps.

        Raises:
            DiskError: the disk cannot be read.
            TargetRefused: its chunks would have to be read too often.
        """
        number = 0
        for first, end in ram:
            while number < len(self._runs) and self._runs[number][1] <= first:
                number += 1
            while number < len(self._runs) and self._runs[number][0] < end:
                start, stop = self._runs[number]
                start, stop = max(start, first), min(stop, end)
                yield from _zeros(start - first)
                yield from self._run(start, stop)
                first = stop
                if self._runs[number][1] > end:
                    break
                number += 1
            yield from _zeros(end - first)

    def _run(self, start: int, stop: int) -> Iterator[bytes]:
        rank = self._runs.rank(start, stop - start)
        for pfn in range(start, stop):
            place = self._chunks[rank + pfn - start]
            page = self._load((place - 1) * PAGE).get(pfn) if place else None
            yield self._unpack(page) if page is not None else ZEROS[:PAGE]

    def _load(self, at: int) -> dict[int, Page]:
        """Return the pages of the chunk at a place that have data."""
        found = self._cache.get(at)
        if found is not None:
            self._cache.move_to_end(at)
            return found
        stream = self._stream
        header, _ = stream.header(at)
        self._read_bytes += header.length() if header else PAGE
        if self._read_bytes > AGAIN * stream.end + 1024 * MIB:
            raise TargetRefused(
                f"{stream.disk.path}: its pages are too scattered to be written in order: name a "
                "file instead of -, or use --format kdump"
            )
        chunk = "its header is damaged" if header is None else stream.chunk(header, at)
        if isinstance(chunk, str):
            stream.damage.add(f"the pages at byte {at} changed while they were read: {chunk}")
            found = {}
        else:
            found = {page.pfn: page for page in pages(chunk, stream.damage) if page.data}
        self._cache[at] = found
        self._cached += len(found)
        while self._cached > CACHED and len(self._cache) > 1:
            _, old = self._cache.popitem(last=False)
            self._cached -= len(old)
        return found


def _zeros(count: int) -> Iterator[bytes]:
    """Yield the bytes of so many pages of zeros."""
    while count > 0:
        part = min(count, len(ZEROS) // PAGE)
        yield ZEROS[: part * PAGE]
        count -= part
