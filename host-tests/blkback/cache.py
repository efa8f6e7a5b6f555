"""A disk with a cache that a loss of power empties, and that fails where it is told to.

Used by stories as the sink of the backend. The rule: what was written since the last flush may be
kept or lost, each sector for itself and in any of the versions that it had.
"""

from blkback.sectors import SECTOR


class CachedDisk:
    """data: what reads find. strike: asked at each I/O, by name, for what to raise there, or None.

    What strikes in a write strikes behind some of its sectors.
    """

    physical = 4096
    granularity = 4096

    def __init__(self, draw, sectors, sector_size=SECTOR):
        self.draw = draw
        self.size = sectors * SECTOR
        self.sector_size = sector_size
        self.direct = draw.choice([None, 0])  # whether it takes many I/Os at a time
        self.data = bytearray(self.size)
        self.strike = lambda name: None
        self._stable = bytearray(self.size)
        self._versions = {}  # by sector, since the last flush

    def read(self, offset, buffers):
        self._strike("read")
        for buffer in buffers:
            buffer[:] = self.data[offset : offset + len(buffer)]
            offset += len(buffer)

    def write(self, offset, buffers):
        data = b"".join(bytes(buffer) for buffer in buffers)
        fault = self.strike("write")
        if fault is None:
            self._put(offset, data)
            return
        self._put(offset, data[: self.draw.randint(0, len(data) // SECTOR) * SECTOR])
        raise fault

    def discard(self, offset, length):
        self._strike("discard")
        if self.draw.random() < 0.8:
            self._put(offset, bytes(length))

    def flush(self):
        self._strike("flush")
        self._stable[:] = self.data
        self._versions.clear()

    def measure(self):
        """The size stays."""

    def close(self):
        """It is the story's, which goes on with it."""

    def _strike(self, name):
        fault = self.strike(name)
        if fault is not None:
            raise fault

    def _put(self, offset, data):
        self.data[offset : offset + len(data)] = data
        for i in range(0, len(data), SECTOR):
            self._versions.setdefault(offset + i, []).append(data[i : i + SECTOR])

    def lose(self):
        """Lose the cache."""
        for at, versions in self._versions.items():
            before = bytes(self._stable[at : at + SECTOR])
            self._stable[at : at + SECTOR] = self.draw.choice([before, *versions])
        self.data[:] = self._stable
        self._versions.clear()
