"""The writer of a stream: it appends chunks to a sink, and indexes them.

Used by the stream, which decides what comes when; chunks.py has the layout, dump.py says what a
sink is. The rule: what was appended is not changed any more.
"""

import struct

import hw
from xenpv.abi import PAGE_SIZE

from . import chunks

PLACES_MAX = 256


class Writer:
    """Appends chunks to a sink.

    Args:
        sink: as dump.py describes it.
        dump: id of the dump, u64.

    Attributes: size, bytes of the stream so far; number, chunks so far; chain, the CRC-32 of their
    headers.
    """

    def __init__(self, sink, dump):
        self._sink = sink
        self._dump = dump
        self.size = 0
        self.number = 0
        self.chain = 0
        self._places = bytearray(PLACES_MAX * chunks.PLACE_SIZE)
        self._count = 0
        self._index = 0

    def _header(self, kind, size, crc, value, count):
        """Make the header of the next chunk. Returns (Header, its bytes)."""
        header = chunks.Header(kind, self._dump, self.size, size, crc, value, count)
        raw = header.encode()
        self.chain = hw.crc32(raw, self.chain)
        self.number += 1
        at = self._count * chunks.PLACE_SIZE
        struct.pack_into(chunks.PLACE, self._places, at, self.size, kind)
        self._count += 1
        self.size += header.length()
        return header, raw

    async def put(self, kind, parts, value=0, count=0):
        """Append a chunk whose payload is given, which is copied.

        Args:
            kind: of chunks.NAMES.
            parts: list of bytes or memoryviews, one behind the other.
            value, count: of the header.
        """
        crc = 0
        size = 0
        for part in parts:
            crc = hw.crc32(part, crc)
            size += len(part)
        _, raw = self._header(kind, size, crc, value, count)
        await self._sink.put(raw)
        for part in parts:
            await self._sink.put(part)
        rest = chunks.padded(chunks.HEADER_SIZE + size) - chunks.HEADER_SIZE - size
        await self._sink.put(bytes(rest))
        await self._indexed()

    async def pages(self, address, size, value, count):
        """Append a PAGES chunk that stands in memory of ours, with room for its header in front.

        It is not copied: it must stay as it is until the sink has written it.

        Args:
            address: physical, of a page of ours.
            size: bytes of the payload, which begins HEADER_SIZE bytes behind address.
            value, count: of the header.
        """
        crc = hw.crc32(hw.mem(address + chunks.HEADER_SIZE, size))
        header, raw = self._header(chunks.PAGES, size, crc, value, count)
        hw.mem(address, chunks.HEADER_SIZE)[:] = raw
        length = header.length()
        rest = length - chunks.HEADER_SIZE - size
        hw.mem(address + length - rest, rest)[:] = bytes(rest)
        await self._sink.own(address // PAGE_SIZE, length // PAGE_SIZE)
        await self._indexed()

    async def raw(self, gfn, entries):
        """Append a RAW chunk of whole frames, which are granted and not copied.

        Args:
            gfn: the first frame.
            entries: a chunks.RAW_ENTRY for each.
        """
        size = len(entries)
        count = size // chunks.RAW_ENTRY_SIZE
        _, raw = self._header(chunks.RAW, size, hw.crc32(entries), 0, count)
        await self._sink.put(raw)
        await self._sink.put(entries)
        await self._sink.frames(gfn, count)
        await self._indexed()

    async def _indexed(self):
        """Append an index once there are as many places as one takes."""
        if self._count == PLACES_MAX:
            await self.index()

    async def index(self):
        """Append an index of the chunks since the last one."""
        count = self._count
        at = self.size
        data = bytes(memoryview(self._places)[: count * chunks.PLACE_SIZE])
        self._count = 0
        before, self._index = self._index, at
        await self.put(chunks.INDEX, [data], before, count)
        # An index is found by the one behind it.
        self._count = 0

    async def manifest(self, lines):
        """Append the last chunk. lines: of its text."""
        await self.index()
        number, index = self.number, self._index
        lines = lines + ["chunks=%d" % number, "chain=%d" % self.chain]
        await self.put(chunks.MANIFEST, [payload(lines)], index, number)


def payload(lines):
    """Return the payload that lines of text make."""
    return ("\n".join(lines) + "\n").encode()
