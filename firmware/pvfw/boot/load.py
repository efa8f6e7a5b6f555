"""The content of a file, read straight into the frames where it belongs.

Used for kernels and initrds. Rules: where a run of the file begins on a page of the file, the disk
writes into the place itself, many requests at a time; only what stands between such pages is read
through the cache and copied. Content that begins inside a page of the file, as a section of a UKI
may, is read from that page's begin on and moved once.
Units: bytes; addresses are physical.
"""

import hw
from xenpv.block.blkif import SECTOR
from xenpv.errors import XenError

from .area import PAGE_SIZE
from .errors import Damaged
from .runs import ZEROS


def pages(offset, size):
    """Return how many pages load() needs for `size` bytes that begin at `offset` of a file."""
    return (offset % PAGE_SIZE + size + PAGE_SIZE - 1) // PAGE_SIZE


async def load(file, address, offset=0, size=None):
    """Read a part of a file into memory.

    Args:
        file: File.
        address: of the first of pages(offset, size) pages; the content is there afterwards, and
            what is behind it in these pages has any content.
        offset: in the file.
        size: None: up to the file's end.

    Returns: bytes read. Raises: Damaged, also where the file has less; Exhausted, XenError.
    """
    if size is None:
        size = file.size - offset
    if offset < 0 or size < 0 or offset + size > file.size:
        raise Damaged("%s: %d bytes at %d, but it has %d" % (file.name, size, offset, file.size))
    if file.runs is None:
        hw.mem(address, size)[:] = file.content[offset : offset + size]
        return size
    skip = offset % PAGE_SIZE
    await _Loading(file, address, offset - skip, offset + size).run()
    if skip and size:
        hw.copy(address, address + skip, size)
    return size


class _Loading:
    """One load(): `begin` is on a page of the file and goes to `address`; `end` is the last one."""

    def __init__(self, file, address, begin, end):
        self._area = file.area
        self._runs = file.runs
        self._address = address
        self._begin = begin
        self._end = end

    async def run(self):
        area = self._area
        place = self._begin
        try:
            try:
                for at, length in self._runs.pieces(place, self._end - place):
                    if at != ZEROS:
                        area.check(at, length)
                    await self._piece(place, at, length)
                    place += length
            finally:
                # What was asked for is written to memory, whatever happened.
                await area.disk.drain()
        except XenError:
            # The next file may be read.
            await area.disk.settle()
            raise

    async def _piece(self, place, at, length):
        """Read what is at one place of the file and of the disk."""
        while length:
            skip = place % PAGE_SIZE
            to = self._address + place - self._begin
            if at == ZEROS:
                number = min(length, PAGE_SIZE - skip)
                hw.mem(to, number)[:] = bytes(number)
            else:
                number = await self._straight(place, at, length)
                if not number:
                    number = min(length, PAGE_SIZE - skip)
                    hw.mem(to, number)[:] = await self._area.read(at, number)
                at += number
            place += number
            length -= number

    async def _straight(self, place, at, length):
        """Have the disk write whole pages, or the last one. Returns bytes, 0 if it cannot be."""
        disk = self._area.disk
        first = self._area.first + at
        if place % PAGE_SIZE or first % disk.sector_size:
            return 0
        if place + length < self._end:
            length = length // PAGE_SIZE * PAGE_SIZE
        if not length:
            return 0
        unit = disk.sector_size
        to = self._address + place - self._begin
        count = (length + unit - 1) // unit * (unit // SECTOR)
        if first // SECTOR + count > disk.sectors:
            return 0
        await disk.read(first // SECTOR, to // PAGE_SIZE, count)
        return length
