"""ext2, ext3 and ext4: superblock, inodes, links; read only.

Used through files.py. Where the blocks of a file are is found by extblocks.py, what a folder has by
extfolder.py. Rules: an incompatible feature that is not known is refused by its name; a journal
that was not replayed is told, and what stands on the disk is read; checksums are not checked, so
each value is held against its bounds.
Source: Linux Documentation/filesystems/ext4, fs/ext4/ext4.h.
"""

import binascii
import struct

from xenpv.text import printable

from . import extblocks, extfolder
from .errors import Damaged, Unsupported
from .nodes import FILE, FOLDER, LINK, OTHER
from .runs import SIZE_MAX, File

SUPERBLOCK_AT = 1024
MAGIC = 0xEF53
ROOT = 2
# Incompatible features: what they are called, and those that are no matter for reading.
NAMES = {
    0x1: "compression",
    0x2: "filetype",
    0x4: "needs_recovery",
    0x8: "journal_dev",
    0x10: "meta_bg",
    0x40: "extent",
    0x80: "64bit",
    0x100: "mmp",
    0x200: "flex_bg",
    0x400: "ea_inode",
    0x1000: "dirdata",
    0x2000: "metadata_csum_seed",
    0x4000: "large_dir",
    0x8000: "inline_data",
    0x10000: "encrypt",
    0x20000: "casefold",
}
RECOVER, META_BG, WIDE = 0x4, 0x10, 0x80
REFUSED = 0x1 | 0x8 | 0x1000
SPARSE_SUPER = 0x1
SPARSE_SUPER2 = 0x200

# Flags of inodes.
COMPRESSED, ENCRYPTED, EXTENTS, INLINE = 0x4, 0x800, 0x80000, 0x10000000
KINDS = {0x4000: FOLDER, 0x8000: FILE, 0xA000: LINK}
INODE_SIZE_MAX = 4096
LINK_MAX = 4096
FAST_LINK = 60


class Inode:
    """An inode. raw: its bytes. Attributes: number, kind, size, flags, block (its 60 bytes)."""

    def __init__(self, number, raw):
        self.number = number
        mode, size = struct.unpack_from("<H2xI", raw, 0)
        self.kind = KINDS.get(mode & 0xF000, OTHER)
        self.flags = struct.unpack_from("<I", raw, 32)[0]
        self.size = size | struct.unpack_from("<I", raw, 108)[0] << 32
        self.block = raw[40:100]
        self.raw = raw


async def mount(area):
    """Return the file system in an area, or None. Raises: Unsupported, Damaged; as Area.read()."""
    if area.size < SUPERBLOCK_AT + 1024:
        return None
    raw = await area.read(SUPERBLOCK_AT, 1024)
    if struct.unpack_from("<H", raw, 56)[0] != MAGIC:
        return None
    return Ext(area, raw)


class Ext:
    """A file system. raw: the superblock. Attributes: those that files.py names; block, bytes."""

    def __init__(self, area, raw):
        self.area = area
        self._inodes, blocks = struct.unpack_from("<II", raw, 0)
        self._first_block, log = struct.unpack_from("<II", raw, 20)
        self._blocks_per_group = struct.unpack_from("<I", raw, 32)[0]
        self._inodes_per_group = struct.unpack_from("<I", raw, 40)[0]
        revision = struct.unpack_from("<I", raw, 76)[0]
        self._inode_size = struct.unpack_from("<H", raw, 88)[0] if revision else 128
        compat, incompat, self._ro = struct.unpack_from("<III", raw, 92)
        self._refuse(incompat)
        self._compat, self._incompat = compat, incompat
        self._descriptor = struct.unpack_from("<H", raw, 254)[0] if incompat & WIDE else 32
        self._first_meta = struct.unpack_from("<I", raw, 260)[0]
        self._backups = struct.unpack_from("<II", raw, 588)
        if incompat & WIDE:
            blocks |= struct.unpack_from("<I", raw, 336)[0] << 32
        self._check(log, blocks)
        self.block = 1024 << log
        self.blocks = blocks
        self._label = printable(raw[120:136].split(b"\0")[0])
        text = binascii.hexlify(raw[104:120]).decode()
        self.uuid = "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))
        self.kind = "ext4" if incompat & 0x2C0 else "ext3" if compat & 0x4 else "ext2"
        self.notes = []
        if incompat & RECOVER:
            self.notes.append(
                "%s: %s was not unmounted; its journal is not replayed, what is on the disk is read"
                % (area.name, self.kind)
            )

    def _refuse(self, incompat):
        """Refuse the features that are not known. Raises Unsupported."""
        names = []
        for i in range(32):
            bit = incompat & 1 << i
            if bit and (bit not in NAMES or bit & REFUSED):
                names.append(NAMES.get(bit, "FEATURE_I%d" % i))
        if names:
            names = ", ".join(names)
            raise Unsupported("%s: ext4 with %s is not read here" % (self.area.name, names))

    def _check(self, log, blocks):
        """Check the geometry. Raises Damaged."""
        size = 1024 << min(log, 7)
        each = self._descriptor
        problem = None
        if log > 6:
            problem = "blocks of 1024 << %d bytes" % log
        elif not 128 <= self._inode_size <= min(size, INODE_SIZE_MAX) or self._inode_size % 4:
            problem = "inodes of %d bytes" % self._inode_size
        elif not 32 <= each <= size or each & (each - 1) or (self._incompat & WIDE and each < 64):
            problem = "group descriptors of %d bytes" % each
        elif not 0 < self._blocks_per_group <= 8 * size * 65536:
            problem = "%d blocks in a group" % self._blocks_per_group
        elif not 0 < self._inodes_per_group <= 8 * size:
            problem = "%d inodes in a group" % self._inodes_per_group
        elif self._first_block != (1 if size == 1024 else 0) and self._first_block != 0:
            problem = "first data block %d" % self._first_block
        elif blocks * size > self.area.size:
            problem = "%d blocks of %d bytes, in an area of %d" % (blocks, size, self.area.size)
        if problem is not None:
            raise Damaged("%s: ext4 superblock: %s" % (self.area.name, problem))

    async def label(self):
        """Return the label."""
        return self._label

    # Inodes.

    def root(self):
        """Return the top folder, as its inode's number alone; it is read when needed."""
        return Top()

    async def inode(self, number):
        """Read an inode. Raises: Damaged; as Area.read()."""
        if not 0 < number <= self._inodes:
            raise self.damaged(number, "there are %d" % self._inodes)
        group, index = (number - 1) // self._inodes_per_group, (number - 1) % self._inodes_per_group
        per_block = self.block // self._descriptor
        at = self._group_block(group // per_block) * self.block
        raw = await self.area.read(
            at + group % per_block * self._descriptor, min(self._descriptor, 64)
        )
        table = struct.unpack_from("<I", raw, 8)[0]
        if self._incompat & WIDE:
            table |= struct.unpack_from("<I", raw, 40)[0] << 32
        if not 0 < table < self.blocks:
            raise self.damaged(number, "its table is in block %d" % table)
        at = table * self.block + index * self._inode_size
        return Inode(number, await self.area.read(at, self._inode_size))

    def _group_block(self, n):
        """Return the block that has the n-th block of group descriptors."""
        if not self._incompat & META_BG or n < self._first_meta:
            return self._first_block + 1 + n
        group = n * (self.block // self._descriptor)
        begin = self._first_block + group * self._blocks_per_group
        return begin + (1 if self._has_superblock(group) else 0)

    def _has_superblock(self, group):
        if self._compat & SPARSE_SUPER2:
            return group == 0 or group in self._backups
        if group < 2 or not self._ro & SPARSE_SUPER:
            return True
        for base in (3, 5, 7):
            power = base
            while power < group:
                power *= base
            if power == group:
                return True
        return False

    def damaged(self, number, why):
        """Return the error of an inode."""
        return Damaged("%s: inode %d: %s" % (self.area.name, number, why))

    async def _full(self, node):
        if node.number == ROOT and node.raw is None:
            node = await self.inode(ROOT)
            if node.kind != FOLDER:
                raise self.damaged(ROOT, "the top folder is none")
        return node

    # What files.py asks for.

    async def file(self, node, name):
        """Return the File of an inode. name: for messages. Raises: Damaged, Unsupported."""
        if node.flags & (ENCRYPTED | COMPRESSED):
            how = "encrypted" if node.flags & ENCRYPTED else "compressed"
            raise Unsupported("%s is %s by its file system" % (name, how))
        if node.size > SIZE_MAX:
            raise self.damaged(node.number, "%d bytes, at most %d" % (node.size, SIZE_MAX))
        if node.flags & INLINE:
            return File(self.area, name, None, extfolder.inline(self, node))
        return File(self.area, name, await extblocks.runs(self, node, node.flags & EXTENTS))

    async def target(self, node):
        """Return where a link points to."""
        if not 0 < node.size <= LINK_MAX:
            raise self.damaged(node.number, "a link of %d bytes" % node.size)
        if node.size < FAST_LINK and not node.flags & (INLINE | ENCRYPTED):
            return node.block[: node.size]
        return await (await self.file(node, "link %d" % node.number)).read(0, node.size)

    async def child(self, node, name):
        """Return the inode of a name in a folder, or None."""
        number = await extfolder.look(self, await self._full(node), name, None)
        return None if number is None else await self.inode(number)

    async def names(self, node):
        """Return the names in a folder."""
        return await extfolder.listing(self, await self._full(node))


class Top:
    """The node of the top folder, before its inode is read."""

    number = ROOT
    kind = FOLDER
    raw = None
