"""Where the bytes of a file are on its disk, and the file that is made of them.

Made by the file systems; read by whoever wants a file's text, and by load.py, which has it read
straight into place. Rules: a file has a bounded number of runs, packed, so that a disk cannot fill
the heap; runs are within the area.
Units: bytes.
"""

from array import array

from .area import READ_MAX
from .errors import Damaged

# In place of an offset: zeros, which are nowhere on the disk.
ZEROS = -1
# Runs of a file that are not adjacent.
RUNS_MAX = 8192
# Largest file.
SIZE_MAX = 1 << 32
NONE = b""


class Runs:
    """The runs of a file, in its order; those that are adjacent on the disk become one.

    Args:
        size: bytes of the file; what is added beyond it counts for nothing.

    Attributes: size; covered, bytes that were added so far.
    """

    def __init__(self, size):
        self.size = size
        self.covered = 0
        self._offsets = array("q", [])
        self._lengths = array("q", [])
        # The run that pieces() used last, and where it begins in the file.
        self._at = (0, 0)

    def __len__(self):
        return len(self._offsets)

    def add(self, offset, length):
        """Add a run.

        Args:
            offset: in the area, or ZEROS.
            length: bytes.

        Raises Damaged: too many runs.
        """
        length = min(length, self.size - self.covered)
        if length <= 0:
            return
        self.covered += length
        last = len(self._offsets) - 1
        if last >= 0:
            before = self._offsets[last]
            end = ZEROS if before == ZEROS else before + self._lengths[last]
            if end == offset:
                self._lengths[last] += length
                return
        if last + 1 >= RUNS_MAX:
            raise Damaged("a file of more than %d runs" % RUNS_MAX)
        self._offsets.append(offset)
        self._lengths.append(length)

    def pieces(self, offset, size):
        """Split bytes of the file at the ends of runs. Yields (offset in the area or ZEROS, bytes).

        They must be the file's.
        """
        i, begin = self._at
        if offset < begin:
            i = begin = 0
        while size:
            skip = offset - begin
            length = self._lengths[i]
            if skip >= length:
                i += 1
                begin += length
                continue
            self._at = (i, begin)
            number = min(size, length - skip)
            at = self._offsets[i]
            yield (ZEROS if at == ZEROS else at + skip), number
            offset += number
            size -= number


class File:
    """A file.

    Args:
        area: Area that it is in.
        name: for messages.
        runs: Runs that cover it; None where its content is given.
        content: bytes of a file that is kept elsewhere than in blocks.

    Attributes: area, name, runs, content; size, in bytes.
    """

    def __init__(self, area, name, runs, content=NONE):
        self.area = area
        self.name = name
        self.runs = runs
        self.content = content
        self.size = len(content) if runs is None else runs.size

    async def read(self, offset, size):
        """Return up to `size` bytes, at most READ_MAX, fewer at the file's end.

        Raises: Damaged, Exhausted, XenError.
        """
        size = min(size, READ_MAX, max(self.size - offset, 0))
        if self.runs is None:
            return self.content[offset : offset + size]
        parts = []
        for at, length in self.runs.pieces(offset, size):
            parts.append(bytes(length) if at == ZEROS else await self.area.read(at, length))
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def text(self, limit):
        """Return the whole content. Raises: as read(); Damaged if it has more than `limit`."""
        if self.size > limit:
            raise Damaged("%s has %d bytes, at most %d are read" % (self.name, self.size, limit))
        if self.size <= READ_MAX:
            return await self.read(0, self.size)
        found = bytearray(self.size)
        done = 0
        while done < self.size:
            part = await self.read(done, READ_MAX)
            found[done : done + len(part)] = part
            done += len(part)
        return bytes(found)
