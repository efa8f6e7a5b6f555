"""The sink that encrypts: it makes an age file of what it is given, and writes that to a target.

Used by the dump agent where the configuration has recipients; it stands between the format and the
target, for both as dump.py describes it. On the target the file is cut into chunks of kind AGE
(chunks.py), whose CRC is over the ciphertext, so that damage is found without a key. Rules: a piece
is encrypted once and then only copied; plaintext stands in a buffer of its own, of which no backend
ever gets a grant. Memory: BUFFERS buffers of BUFFER_PAGES pages and one piece.
"""

import hw
from xenpv.abi import PAGE_SIZE

from . import age, chunks
from .errors import DumpError

BUFFERS = 2
# A chunk of 16 pages, and room for what of a piece does not fit: that begins the next chunk.
BUFFER_PAGES = 17
PIECE_PAGES = age.PIECE_SIZE // PAGE_SIZE
# What may be left over, so that header, this and one more piece fit a buffer.
REST_MAX = BUFFER_PAGES * PAGE_SIZE - chunks.HEADER_SIZE - age.PIECE_SIZE - age.TAG_SIZE
# Bytes on the target beyond those of the content, at least.
OVERHEAD = 2 * PAGE_SIZE


class Sealed:
    """A sink whose target gets everything encrypted.

    Args:
        keys: age.Keys.

    Raises DumpError where there is no memory for the buffers.
    """

    def __init__(self, keys):
        self._keys = keys
        try:
            self._piece = hw.alloc_pages(PIECE_PAGES)
            self._buffers = [hw.alloc_pages(BUFFER_PAGES) for _ in range(BUFFERS)]
        except MemoryError as e:
            raise DumpError("no memory for the buffers of the encryption: %s" % e)

    def begin(self, target, dump):
        """Begin an age file of its own.

        Args:
            target: the sink that is written to.
            dump: id of the dump, u64.

        Raises DumpError where no key can be made.
        """
        self._target = target
        self._dump = dump
        header, self._key = self._keys.file()
        # Of the piece: bytes so far, number.
        self._filled = self._counter = 0
        # Of the chunk in self._buffers[self._now]: where it begins in the dump and in the age file,
        # bytes behind its header so far.
        self._now = self._size = self._at = 0
        self._used = len(header)
        # Whether a chunk is being written; for good once that has failed.
        self._is_sending = False
        hw.mem(self._buffers[0] + chunks.HEADER_SIZE, len(header))[:] = header
        # Up to where the target must have written before a buffer is used again.
        self._ends = [0] * BUFFERS

    async def put(self, data):
        """Append bytes (bytes or memoryview of any length). Raises what the target raises."""
        done = 0
        while done < len(data):
            count = min(await self._room(), len(data) - done)
            hw.mem(self._piece + self._filled, count)[:] = data[done : done + count]
            self._filled += count
            done += count

    async def own(self, gfn, count):
        """Append whole frames, behind the end of a page; they are copied.

        Args:
            gfn: the first frame.
            count: how many.
        """
        await self.put(bytes(-self._filled % PAGE_SIZE))
        address, end = gfn * PAGE_SIZE, (gfn + count) * PAGE_SIZE
        while address < end:
            size = min(await self._room(), end - address)
            hw.copy(self._piece + self._filled, address, size)
            self._filled += size
            address += size

    async def frames(self, gfn, count):
        """Append whole frames of the crashed kernel. Args: as own()."""
        await self.own(gfn, count)

    async def wait(self, size):
        """Do nothing: what was given has been copied."""

    async def sync(self):
        """Have what was encrypted so far on stable storage: all but the last piece."""
        await self._target.sync()

    async def end(self):
        """Encrypt what is left as the last piece, and wait until everything is written.

        Returns: bytes of the dump on the target.
        """
        await self._seal(True)
        return await self._target.end()

    async def _room(self):
        """Return how many bytes more the piece takes; a full one is encrypted first."""
        # Not sooner: age wants the last piece marked, and not empty.
        if self._filled == age.PIECE_SIZE:
            await self._seal(False)
        return age.PIECE_SIZE - self._filled

    async def _seal(self, is_last):
        if self._is_sending:
            raise DumpError("the encryption cannot go on: an earlier piece was not written")
        self._is_sending = True
        size = self._filled
        at = self._buffers[self._now] + chunks.HEADER_SIZE + self._used
        sealed = hw.mem(at, size + age.TAG_SIZE)
        counter = self._counter
        # Before what may fail: no number may be used twice.
        self._counter += 1
        self._filled = 0
        hw.seal(self._key, counter, is_last, hw.mem(self._piece, size), sealed)
        self._used += size + age.TAG_SIZE
        await self._send(is_last)
        self._is_sending = False

    async def _send(self, is_last):
        """Write the chunk, up to the last whole page if others follow."""
        buffer = self._buffers[self._now]
        end = chunks.HEADER_SIZE + self._used
        length = chunks.padded(end)
        if not is_last and end % PAGE_SIZE <= REST_MAX:
            length = end // PAGE_SIZE * PAGE_SIZE
        size = min(self._used, length - chunks.HEADER_SIZE)
        crc = hw.crc32(hw.mem(buffer + chunks.HEADER_SIZE, size))
        number = 1 if is_last else 0
        header = chunks.Header(chunks.AGE, self._dump, self._size, size, crc, self._at, number)
        hw.mem(buffer, chunks.HEADER_SIZE)[:] = header.encode()
        if end < length:
            hw.mem(buffer + end, length - end)[:] = bytes(length - end)
        await self._target.own(buffer // PAGE_SIZE, length // PAGE_SIZE)
        self._size += length
        self._at += size
        self._ends[self._now] = self._size
        self._now = (self._now + 1) % BUFFERS
        await self._target.wait(self._ends[self._now])
        self._used -= size
        hw.copy(self._buffers[self._now] + chunks.HEADER_SIZE, buffer + length, self._used)
