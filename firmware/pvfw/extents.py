"""The extents of a disk that are a target: a file, a partition, a logical volume.

Read from the configuration (config.py), used by target and choose. The target's sectors are those
of the extents, one extent behind the other. Rules: extents are whole pages, so each frame of memory
goes to one of them; nothing outside them is written. Whole disks do not come here.
Units: sectors of 512 bytes.
"""

import struct

from xenpv.block.blkif import PAGE_SECTORS, SECTOR

from .errors import ConfigError, TargetRefused

EXTENT = "<QI"
EXTENT_SIZE = 12
EXTENTS_MAX = 1024
SECTORS_MAX = 1 << 54  # of any disk, so that bytes fit 63 bits


class Extents:
    """A list of extents, in the order in which they make the target.

    Args:
        raw: EXTENT for each: first sector on the disk, sectors.

    Raises ConfigError where they cannot be: none, too many, not whole pages, out of bounds, or two
    that overlap.

    Attributes: sectors, of all; end, the sector of the disk behind the last one of any.
    """

    def __init__(self, raw):
        self._raw = bytes(raw)
        self.sectors = 0
        self.end = 0
        count = len(self)
        if len(raw) != count * EXTENT_SIZE or not 0 < count <= EXTENTS_MAX:
            raise ConfigError("%d bytes of extents, 1 to %d expected" % (len(raw), EXTENTS_MAX))
        for first, sectors in self:
            if first % PAGE_SECTORS or sectors % PAGE_SECTORS or sectors == 0:
                raise ConfigError("extent of %d sectors at %d: no pages" % (sectors, first))
            if first + sectors > SECTORS_MAX:
                raise ConfigError("extent of %d sectors at %d: no disk" % (sectors, first))
            self.sectors += sectors
            self.end = max(self.end, first + sectors)
        end = 0
        for i in sorted(range(count), key=self._first):
            first, sectors = self._extent(i)
            if first < end:
                raise ConfigError("two extents have sector %d" % first)
            end = first + sectors
        # The extent that runs() used last, and where it begins in the target.
        self._at = (0, 0)

    def __len__(self):
        return len(self._raw) // EXTENT_SIZE

    def __iter__(self):
        for i in range(len(self)):
            yield self._extent(i)

    def _extent(self, i):
        return struct.unpack_from(EXTENT, self._raw, i * EXTENT_SIZE)

    def _first(self, i):
        return self._extent(i)[0]

    def raw(self):
        """Return the bytes that it was made of."""
        return self._raw

    def first(self):
        """Return the sector of the disk where the target begins."""
        return self._first(0)

    def runs(self, sector, count):
        """Split sectors of the target at the ends of the extents.

        Yields (sector of the disk, number), in order. The sectors must be the target's.
        """
        i, begin = self._at
        if sector < begin:
            i = begin = 0
        while count:
            first, sectors = self._extent(i)
            skip = sector - begin
            if skip >= sectors:
                i += 1
                begin += sectors
                continue
            self._at = (i, begin)
            number = min(count, sectors - skip)
            yield first + skip, number
            sector += number
            count -= number


class ExtentDisk:
    """The extents of a disk, used as a disk of their own.

    Args:
        disk: BlkFront.
        extents: Extents.

    Attributes: sectors, of all the extents; else as those of BlkFront.
    """

    def __init__(self, disk, extents):
        self._disk = disk
        self._extents = extents
        self.sectors = extents.sectors
        # What was written and may not be acknowledged: [sector here, sector of the disk, number].
        self._pieces = []
        self._written_to = 0

    @property
    def loop(self):
        """The Loop."""
        return self._disk.loop

    @property
    def device(self):
        """The xenbus.Device."""
        return self._disk.device

    @property
    def properties(self):
        """Negotiate.Properties of the disk."""
        return self._disk.properties

    @property
    def sector_size(self):
        """Bytes of the disk's sectors."""
        return self._disk.sector_size

    @property
    def read_only(self):
        """Whether the disk is."""
        return self._disk.read_only

    def check(self):
        """Refuse a disk that does not have all of the extents. Raises TargetRefused."""
        end = self._extents.end
        if end > self._disk.sectors:
            raise TargetRefused(
                "its extents go up to sector %d, but the disk has %d: `pvdump arm` anew"
                % (end, self._disk.sectors)
            )
        if self._disk.sector_size > PAGE_SECTORS * SECTOR:
            raise TargetRefused("the disk has sectors of %d bytes" % self._disk.sector_size)

    async def read(self, sector, gfn, count):
        """Read as BlkFront.read()."""
        for at, number in self._extents.runs(sector, count):
            await self._disk.read(at, gfn, number)
            gfn += number // PAGE_SECTORS

    async def write(self, sector, gfn, count, frames=None):
        """Write as BlkFront.write()."""
        for at, number in self._extents.runs(sector, count):
            await self._disk.write(at, gfn, number, frames)
            # Of a write that failed half way nothing counts as written.
            self._note(sector, at, number)
            sector += number
            if frames is None:
                gfn += number // PAGE_SECTORS

    def _note(self, sector, at, number):
        self._written_to = max(self._written_to, sector + number)
        for piece in self._pieces:
            if (piece[0] + piece[2], piece[1] + piece[2]) == (sector, at):
                piece[2] += number
                return
        self._pieces.append([sector, at, number])

    def acknowledged(self, first):
        """Give a sector as BlkFront.acknowledged()."""
        pending = self._disk.pending()
        lowest = max(self._written_to, first)
        left = []
        for piece in self._pieces:
            sector, at, number = piece
            inside = [p for p in pending if at <= p < at + number]
            if inside:
                left.append(piece)
                found = sector + min(inside) - at
                if found >= first:
                    lowest = min(lowest, found)
        self._pieces = left
        return lowest

    async def wait(self, first, sector):
        """Wait as BlkFront.wait()."""
        await self._disk.wait_until(lambda: self.acknowledged(first) >= sector)

    def writing(self, sector):
        """Tell as BlkFront.writing()."""
        return self._disk.writing(next(self._extents.runs(sector, 1))[0])

    async def connect(self, *timeout):
        """Connect the disk. Raises: as BlkFront.connect()."""
        await self._disk.connect(*timeout)

    def connected(self):
        """Tell whether the disk is connected."""
        return self._disk.connected()

    async def drain(self):
        """Wait as BlkFront.drain()."""
        await self._disk.drain()

    async def flush(self):
        """Flush as BlkFront.flush()."""
        await self._disk.flush()

    async def settle(self):
        """Wait as BlkFront.settle()."""
        await self._disk.settle()

    async def close(self):
        """Close the disk."""
        await self._disk.close()
