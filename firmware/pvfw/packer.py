"""The packers: they make chunks of pages, each page compressed by itself or as it is.

Used by the stream. Memory: the buffers that are asked for, of BUFFER_PAGES pages each, in which
pages are packed while the ones before are on their way.
"""

import struct
from array import array

import hw
from xenpv.abi import PAGE_SIZE

from . import chunks
from .errors import DumpError

BUFFERS = 2
BUFFER_PAGES = 32
# Entries of a chunk's table of pages.
TABLE_MAX = 512
# Indexes of what hw.pack() is given.
GFN, COUNT, BIT, USED, ENTRIES = range(5)
# Bytes of a buffer that pages may fill: the header is in front, the table goes behind.
ROOM = BUFFER_PAGES * PAGE_SIZE - chunks.HEADER_SIZE - TABLE_MAX * chunks.ENTRY_SIZE


class Packer:
    """Packs pages into chunks, in buffers that the sink writes while the next ones are filled.

    Args:
        buffers: how many there are.

    Attributes: done, pages packed so far.

    Raises DumpError where there is no memory for its buffers.
    """

    def __init__(self, buffers):
        self._out = self._sink = None
        self.done = 0
        self._table = bytearray(TABLE_MAX * chunks.ENTRY_SIZE)
        # What hw.pack() is to do, and how far it is: frame, frames left, the frame's bit,
        # bytes in the buffer, entries in the table.
        self._state = array("Q", (0, 0, 0, 0, 0))
        self._buffers = _buffers(buffers)
        # Up to where the sink must have written before a buffer is used again.
        self._ends = [0] * buffers
        self._now = 0
        # What is added to a frame to tell where it was: that of the pages of a chunk is the same.
        self._moved = 0

    def begin(self, out, sink):
        """Have what follows appended by a Writer to its sink, from nothing packed on."""
        self._out = out
        self._sink = sink
        self.done = self._moved = 0
        for i in range(len(self._state)):
            self._state[i] = 0
        for i in range(len(self._ends)):
            self._ends[i] = 0

    async def pack(self, gfn, count, pfn):
        """Pack pages.

        Args:
            gfn: frame where the first one is.
            count: how many.
            pfn: frame where it was in the crashed kernel.
        """
        if pfn - gfn != self._moved:
            await self.flush()
            self._moved = pfn - gfn
        state = self._state
        state[GFN] = gfn
        state[COUNT] = count
        state[BIT] = 0
        while True:
            at = self._buffers[self._now] + chunks.HEADER_SIZE
            hw.pack(state, None, hw.mem(at, ROOM), self._table)
            if state[COUNT] == 0:
                break
            await self.flush()
        self.done += count

    def _move(self, size):
        """Give the table's entries the frames where their pages were."""
        for at in range(0, size, chunks.ENTRY_SIZE):
            entry = struct.unpack_from("<Q", self._table, at)[0]
            struct.pack_into("<Q", self._table, at, entry + (self._moved << 32))

    async def flush(self):
        """Append what is packed as a chunk, and take the next buffer."""
        state = self._state
        count = state[ENTRIES]
        if count == 0:
            return
        address = self._buffers[self._now]
        filled = state[USED]
        size = count * chunks.ENTRY_SIZE
        if self._moved:
            self._move(size)
        table = memoryview(self._table)[:size]
        hw.mem(address + chunks.HEADER_SIZE + filled, size)[:] = table
        await self._out.pages(address, filled + size, filled, count)
        self._ends[self._now] = self._out.size
        self._now = (self._now + 1) % len(self._buffers)
        state[USED] = state[ENTRIES] = 0
        await self._sink.wait(self._ends[self._now])


class Raw:
    """Appends pages as they are; takes Packer's place where nothing is to be compressed.

    Attributes: done, pages appended so far.
    """

    def __init__(self):
        self._out = None
        self.done = 0

    def begin(self, out, sink):
        """Have what follows appended by a Writer, from nothing appended on."""
        self._out = out
        self.done = 0

    async def pack(self, gfn, count, pfn):
        """Append pages. Args: as Packer.pack()."""
        while count:
            part = min(count, chunks.RAW_MAX)
            entries = bytearray(part * chunks.RAW_ENTRY_SIZE)
            for i in range(part):
                crc = hw.crc32(hw.mem((gfn + i) * PAGE_SIZE, PAGE_SIZE))
                at = i * chunks.RAW_ENTRY_SIZE
                struct.pack_into(chunks.RAW_ENTRY, entries, at, pfn + i, crc)
            await self._out.raw(gfn, entries)
            gfn += part
            pfn += part
            count -= part
            self.done += part

    async def flush(self):
        """Do nothing: each chunk is appended at once."""


def _buffers(number):
    try:
        return [hw.alloc_pages(BUFFER_PAGES) for _ in range(number)]
    except MemoryError as e:
        raise DumpError("no memory for %d buffers of %d pages: %s" % (number, BUFFER_PAGES, e))
