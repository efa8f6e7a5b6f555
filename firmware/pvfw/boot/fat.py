"""FAT12, FAT16 and FAT32: boot sector, chains of clusters; read only.

Used through files.py; what stands in folders is read by fatfolder.py. Rules: a chain is followed as
far as the file's size needs it, a folder's up to a bound, so a loop ends; a cluster out of bounds,
free or bad ends it in an error. One piece of the table is in memory at a time.
Source: Microsoft, "FAT: General Overview of On-Disk Format" 1.03; Linux fs/fat/inode.c.
"""

import struct

from . import fatfolder
from .errors import Damaged
from .nodes import FOLDER, FOLDER_MAX
from .runs import File, Runs

# bytes_per_sector sectors_per_cluster reserved fats root_entries sectors media fat_sectors
FIELDS = "<HBHBHHBH"
FIELDS_AT = 11
SECTORS = (512, 1024, 2048, 4096)
# The whole table of a FAT12.
PIECE = 8192
# Clusters of a file.
CLUSTERS_MAX = 1 << 20
FIRST = 2
# The types by the number of clusters, which are of 12 bits below the first, of 16 below the second.
FAT12_END, FAT16_END = 4085, 65525


async def mount(area):
    """Return the file system in an area, or None. Raises: Damaged; as Area.read()."""
    if area.size < 512:
        return None
    raw = await area.read(0, 512)
    sector, cluster, reserved, fats, _, _, media, _ = struct.unpack_from(FIELDS, raw, FIELDS_AT)
    if sector not in SECTORS or not cluster or cluster & (cluster - 1):
        return None
    if not reserved or not fats or (media < 0xF8 and media != 0xF0):
        return None
    return Fat(area, raw)


class Fat:
    """A file system. raw: the boot sector. Attributes: those that files.py names."""

    kind = "vfat"

    def __init__(self, area, raw):
        self.area = area
        self.notes = []
        sector, per_cluster, reserved, fats, entries, sectors, _, size = struct.unpack_from(
            FIELDS, raw, FIELDS_AT
        )
        wide = not size
        long, size32, flags, _, top = struct.unpack_from("<IIHHI", raw, 32)
        sectors = sectors or long
        size = size or size32
        active = flags & 15 if wide and flags & 0x80 else 0
        self._cluster = sector * per_cluster
        root = (entries * 32 + sector - 1) // sector
        self._data = (reserved + fats * size + root) * sector
        clusters = (sectors * sector - self._data) // self._cluster
        self._end = clusters + FIRST
        self._bits = 32 if wide else 12 if clusters < FAT12_END else 16
        self._top = top if wide else 0
        self._top_run = (self._data - root * sector, entries * 32)
        self._table = (reserved + active * size) * sector
        self._table_size = (self._end * self._bits + 7) // 8
        self._piece, self._piece_at = b"", -1
        serial = struct.unpack_from("<I", raw, 67 if wide else 39)[0]
        self.uuid = "%04X-%04X" % (serial >> 16, serial & 0xFFFF)
        problem = None
        if sectors * sector > area.size:
            problem = "%d sectors of %d bytes, in an area of %d" % (sectors, sector, area.size)
        elif clusters <= 0 or active >= fats:
            problem = "no room for files"
        elif size * sector < self._table_size:
            problem = "a table of %d sectors for %d clusters" % (size, clusters)
        elif not wide and (not entries or clusters >= FAT16_END):
            problem = "%d clusters, %d entries in the top folder" % (clusters, entries)
        if problem is not None:
            raise Damaged("%s: FAT boot sector: %s" % (area.name, problem))

    def damaged(self, why):
        """Return an error."""
        return Damaged("%s: FAT: %s" % (self.area.name, why))

    # Chains.

    def _at(self, cluster):
        """Return where a cluster is. Raises Damaged."""
        if not FIRST <= cluster < self._end:
            raise self.damaged("cluster %d of %d to %d" % (cluster, FIRST, self._end - 1))
        return self._data + (cluster - FIRST) * self._cluster

    async def _next(self, cluster):
        """Return the cluster that follows one; None at the end of a chain."""
        bits = self._bits
        at = cluster * bits // 8
        begin = at // PIECE * PIECE
        if begin != self._piece_at:
            size = min(PIECE, self._table_size - begin)
            self._piece = await self.area.read(self._table + begin, size)
            self._piece_at = begin
        at -= begin
        if bits == 32:
            value = struct.unpack_from("<I", self._piece, at)[0] & 0xFFFFFFF
            end = 0xFFFFFF8
        elif bits == 16:
            value = struct.unpack_from("<H", self._piece, at)[0]
            end = 0xFFF8
        else:
            pair = struct.unpack_from("<H", self._piece, at)[0]
            value = pair >> 4 if cluster & 1 else pair & 0xFFF
            end = 0xFF8
        return None if value >= end else value

    async def _chain(self, cluster, size, name):
        """Find the clusters of a file. Returns Runs."""
        clusters = (size + self._cluster - 1) // self._cluster
        if clusters > CLUSTERS_MAX:
            raise self.damaged("%s: %d clusters, at most %d" % (name, clusters, CLUSTERS_MAX))
        found = Runs(size)
        while found.covered < size:
            if cluster is None:
                raise self.damaged("%s: the chain ends after %d bytes" % (name, found.covered))
            found.add(self._at(cluster), self._cluster)
            if found.covered < size:
                cluster = await self._next(cluster)
        return found

    async def _folder(self, node):
        """Return a folder as a File."""
        name = "a folder at cluster %d" % node.cluster
        if not node.cluster and not self._top:
            found = Runs(self._top_run[1])
            found.add(*self._top_run)
            return File(self.area, name, found)
        found = Runs(FOLDER_MAX)
        cluster = node.cluster or self._top
        while cluster is not None:
            if found.covered == FOLDER_MAX:
                raise self.damaged("%s has more than %d bytes, or a loop" % (name, FOLDER_MAX))
            found.add(self._at(cluster), self._cluster)
            cluster = await self._next(cluster)
        found.size = found.covered
        return File(self.area, name, found)

    # What files.py asks for.

    def root(self):
        """Return the node of the top folder."""
        return fatfolder.Node(FOLDER, 0, 0)

    async def label(self):
        """Return the label, which stands in the top folder."""
        return await fatfolder.label(await self._folder(self.root()))

    async def file(self, node, name):
        """Return the File of a node. name: for messages. Raises: Damaged; as Area.read()."""
        return File(self.area, name, await self._chain(node.cluster, node.size, name))

    async def target(self, node):
        """There are no links. Raises Damaged."""
        raise self.damaged("no link")

    async def child(self, node, name):
        """Return the node of a name in a folder, or None; letters of ASCII match either case."""
        found = await fatfolder.look(await self._folder(node), name, None)
        if found is not None and self._bits != 32:
            # The upper half is something else there.
            found.cluster &= 0xFFFF
        return found

    async def names(self, node):
        """Return the names in a folder."""
        return await fatfolder.listing(await self._folder(node))
