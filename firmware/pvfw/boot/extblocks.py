"""Where the blocks of an ext2, ext3 or ext4 file are: a tree of extents, or indirect blocks.

Used by ext.py. Rules: a tree becomes lower with each step, its blocks ascend, and each block is one
of the file system; the number of nodes is bounded. What is not mapped, or not initialised, is
zeros.
Source: Linux Documentation/filesystems/ext4/dynamic.rst, ifork.rst.
"""

import struct

from .runs import ZEROS, Runs

EXTENT_MAGIC = 0xF30A
# magic entries max depth generation; index: block leaf_low leaf_high; extent: block length
# start_high start_low
HEAD = "<HHHHI"
INDEX = "<IIHH"
EXTENT = "<IHHI"
ENTRY_SIZE = 12
DEPTH_MAX = 5
INITIALISED_MAX = 32768
DIRECT = 12
# Blocks of a file that can be mapped one by one, and blocks that have the numbers of others.
BLOCKS_MAX = 1 << 20
NODES_MAX = 8192


async def runs(fs, inode, has_extents):
    """Find the blocks of a file.

    Args:
        fs: Ext.
        inode: Inode, whose size is within bounds.
        has_extents: whether it has a tree of extents.

    Returns: Runs. Raises: Damaged; as Area.read().
    """
    found = Runs(inode.size)
    if inode.size:
        finder = (_Extents if has_extents else _Indirect)(fs, inode, found)
        await finder.find()
        found.add(ZEROS, inode.size - found.covered)
    return found


class _Finder:
    """The state of one search.

    Attributes: next, the file's block that comes next.
    """

    def __init__(self, fs, inode, found):
        self._fs = fs
        self._inode = inode
        self._found = found
        self._nodes = 0
        self.next = 0

    def damaged(self, why):
        return self._fs.damaged(self._inode.number, why)

    def add(self, block, count):
        """Add blocks of the file. block: the first on the disk, 0 for none."""
        fs = self._fs
        if block + count > fs.blocks:
            raise self.damaged("block %d, but there are %d" % (block + count - 1, fs.blocks))
        self._found.add(block * fs.block if block else ZEROS, count * fs.block)
        self.next += count

    def skip_to(self, block):
        """Add zeros up to a block of the file."""
        if block > self.next:
            self.add(0, block - self.next)

    def done(self):
        """Tell whether all of the file's bytes are found."""
        return self._found.covered == self._found.size

    async def read(self, block):
        """Read a block that has numbers of others."""
        self._nodes += 1
        if self._nodes > NODES_MAX:
            raise self.damaged("more than %d blocks that name others" % NODES_MAX)
        if not 0 < block < self._fs.blocks:
            raise self.damaged("block %d, but there are %d" % (block, self._fs.blocks))
        return await self._fs.area.read(block * self._fs.block, self._fs.block)


class _Extents(_Finder):
    async def find(self):
        await self._node(self._inode.block, None)

    async def _node(self, raw, depth):
        """Add what a node of the tree has. depth: what it must be, None for the first."""
        magic, entries, most, said, _ = struct.unpack_from(HEAD, raw, 0)
        if magic != EXTENT_MAGIC:
            raise self.damaged("no extents where they should be")
        if entries > most or (entries + 1) * ENTRY_SIZE > len(raw):
            raise self.damaged("%d extents in %d bytes" % (entries, len(raw)))
        if said != depth if depth is not None else said > DEPTH_MAX:
            raise self.damaged("extents of depth %d" % said)
        for i in range(1, entries + 1):
            if said:
                block, low, high, _ = struct.unpack_from(INDEX, raw, i * ENTRY_SIZE)
                if block < self.next:
                    raise self.damaged("extents that do not ascend")
                await self._node(await self.read(low | high << 32), said - 1)
            else:
                self._extent(*struct.unpack_from(EXTENT, raw, i * ENTRY_SIZE))
            if self.done():
                return

    def _extent(self, block, length, high, low):
        if block < self.next or not length:
            raise self.damaged("extents that do not ascend")
        self.skip_to(block)
        if length > INITIALISED_MAX:
            self.add(0, length - INITIALISED_MAX)
            return
        start = low | high << 32
        if not start:
            raise self.damaged("an extent in block 0")
        self.add(start, length)


class _Indirect(_Finder):
    async def find(self):
        if self._inode.size > BLOCKS_MAX * self._fs.block:
            raise self.damaged("%d bytes, mapped block by block" % self._inode.size)
        numbers = struct.unpack_from("<15I", self._inode.block, 0)
        for block in numbers[:DIRECT]:
            if not self.done():
                self.add(block, 1)
        for level, block in enumerate(numbers[DIRECT:]):
            if not self.done():
                await self._level(block, level)

    async def _level(self, block, level):
        """Add what a block names. level: 0 if they are the file's, else how far above these."""
        per_block = self._fs.block // 4
        if not block:
            self.add(0, per_block ** (level + 1))
            return
        raw = await self.read(block)
        for i in range(per_block):
            if self.done():
                return
            number = struct.unpack_from("<I", raw, i * 4)[0]
            if level:
                await self._level(number, level - 1)
            else:
                self.add(number, 1)
