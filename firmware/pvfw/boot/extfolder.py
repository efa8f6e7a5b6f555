"""Folders of ext2, ext3 and ext4, and content that is kept in the inode (inline_data).

Used by ext.py. Rules: a folder is read from its begin to its end, whether or not it has an index,
whose blocks look like unused entries; an entry lies within its block.
Source: Linux Documentation/filesystems/ext4/directory.rst, inlinedata.rst, attributes.rst.
"""

import struct

from . import extblocks
from .errors import Unsupported
from .nodes import FOLDER, FOLDER_MAX, Names

# inode record_length name_length type
ENTRY = "<IHBB"
ENTRY_SIZE = 8
ENCRYPTED, EXTENTS, INLINE = 0x800, 0x80000, 0x10000000
INODE_OLD = 128
XATTR_MAGIC = 0xEA020000
# name_length name_index value_offset value_inode value_size hash
XATTR = "<BBHIII"
XATTR_SIZE = 16
SYSTEM = 7


def inline(fs, node):
    """Return the content that an inode has, bytes. Raises Damaged."""
    first = node.block[: min(node.size, 60)]
    if node.size <= 60:
        return first
    rest = _attribute(fs, node)
    if len(first) + len(rest) < node.size:
        raise fs.damaged(node.number, "%d bytes, %d of them there" % (node.size, 60 + len(rest)))
    return first + rest[: node.size - 60]


def _attribute(fs, node):
    """Return the value of system.data, where what does not fit into the first 60 bytes is."""
    raw = node.raw
    extra = struct.unpack_from("<H", raw, INODE_OLD)[0] if len(raw) > INODE_OLD + 2 else 0
    begin = INODE_OLD + extra + 4
    if begin > len(raw) or struct.unpack_from("<I", raw, begin - 4)[0] != XATTR_MAGIC:
        return b""
    at = begin
    while at + XATTR_SIZE <= len(raw) and struct.unpack_from("<I", raw, at)[0]:
        length, index, offset, other, size, _ = struct.unpack_from(XATTR, raw, at)
        name = raw[at + XATTR_SIZE : at + XATTR_SIZE + length]
        if index == SYSTEM and name == b"data":
            if other or begin + offset + size > len(raw):
                raise fs.damaged(node.number, "system.data outside the inode")
            return raw[begin + offset : begin + offset + size]
        at += (XATTR_SIZE + length + 3) // 4 * 4
    return b""


async def listing(fs, node):
    """Return the names in a folder. Raises: as look()."""
    names = Names("%s: inode %d" % (fs.area.name, node.number))
    await look(fs, node, None, names)
    return names.found


async def look(fs, node, wanted, names):
    """Look through a folder.

    Args:
        fs: Ext.
        node: Inode.
        wanted: the name (bytes) that is looked for, or None.
        names: None, or Names that is given the names.

    Returns: number of the inode that is wanted, or None. Raises: Damaged, Unsupported; as
    Area.read().
    """
    if node.kind != FOLDER:
        raise fs.damaged(node.number, "no folder")
    if node.flags & ENCRYPTED:
        raise Unsupported("%s: folder %d is encrypted" % (fs.area.name, node.number))
    if node.size > FOLDER_MAX:
        raise fs.damaged(node.number, "a folder of %d bytes, at most %d" % (node.size, FOLDER_MAX))
    if node.flags & INLINE:
        # The number of the folder above, then entries, in two places.
        content = inline(fs, node)
        for raw in (content[4:60], content[60:]):
            found = _block(fs, node, raw, wanted, names)
            if found is not None:
                return found
        return None
    runs = await extblocks.runs(fs, node, node.flags & EXTENTS)
    done = 0
    while done < node.size:
        size = min(fs.block, node.size - done)
        for at, length in runs.pieces(done, size):
            if at < 0 or length != size:
                raise fs.damaged(node.number, "a hole in a folder")
            raw = await fs.area.read(at, length)
            found = _block(fs, node, raw, wanted, names)
            if found is not None:
                return found
        done += size
    return None


def _block(fs, node, raw, wanted, names):
    """Look through the entries of one block, as look() does."""
    at = 0
    end = len(raw)
    while at < end:
        if at + ENTRY_SIZE > end:
            raise fs.damaged(node.number, "half an entry of a folder")
        inode, length, size, _ = struct.unpack_from(ENTRY, raw, at)
        # 65536 does not fit.
        if length in (0, 65535) and end == 65536:
            length = 65536
        if length < ENTRY_SIZE + size or length % 4 or at + length > end:
            raise fs.damaged(node.number, "an entry of %d bytes in a folder" % length)
        if inode:
            name = raw[at + ENTRY_SIZE : at + ENTRY_SIZE + size]
            if name == wanted:
                return inode
            if names is not None and name not in (b".", b".."):
                names.add(name)
        at += length
    return None
