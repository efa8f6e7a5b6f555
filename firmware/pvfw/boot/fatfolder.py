"""Folders of FAT: entries of 32 bytes, short names and the long ones that stand before them.

Used by fat.py. Rules: a long name counts if all its parts are there in their order and its checksum
is that of the short name behind it; else the short name is the name. Letters of ASCII are the same
in either case.
Source: Microsoft, "FAT: General Overview of On-Disk Format" 1.03.
"""

import struct

from xenpv.text import printable

from .nodes import FILE, FOLDER, Names

ENTRY_SIZE = 32
PIECE = 8192
LABEL, DIRECTORY, LONG = 0x08, 0x10, 0x0F
DELETED = 0xE5
LAST = 0x40
PARTS_MAX = 20


class Node:
    """An entry of a folder. cluster: the first one; 0 is the top folder's, or an empty file's."""

    def __init__(self, kind, cluster, size):
        self.kind = kind
        self.cluster = cluster
        self.size = size


async def look(folder, wanted, names):
    """Look through a folder.

    Args:
        folder: File.
        wanted: the name (bytes) that is looked for, or None.
        names: None, or Names that is given the names.

    Returns: Node of the name that is wanted, or None. Raises: as File.read().
    """
    if wanted is not None:
        wanted = wanted.lower()
    long = _Long()
    done = 0
    while done < folder.size:
        piece = await folder.read(done, PIECE)
        for at in range(0, len(piece) - ENTRY_SIZE + 1, ENTRY_SIZE):
            raw = piece[at : at + ENTRY_SIZE]
            if raw[0] == 0:
                return None
            if raw[0] == DELETED:
                long.drop()
            elif raw[11] & 0x3F == LONG:
                long.add(raw)
            elif raw[11] & LABEL:
                long.drop()
            else:
                short = _short(raw)
                name = long.take(raw) or short
                if wanted is not None and wanted in (name.lower(), short.lower()):
                    return _node(raw)
                if names is not None and short not in (b".", b".."):
                    names.add(name)
        done += len(piece)
    return None


async def listing(folder):
    """Return the names in a folder. Raises: as look(); Damaged if they are too many."""
    names = Names("%s: %s" % (folder.area.name, folder.name))
    await look(folder, None, names)
    return names.found


async def label(folder):
    """Return the label of the file system, which stands in its top folder; "" if it has none."""
    done = 0
    while done < folder.size:
        piece = await folder.read(done, PIECE)
        for at in range(0, len(piece) - ENTRY_SIZE + 1, ENTRY_SIZE):
            first, kind = piece[at], piece[at + 11]
            if first == 0:
                return ""
            if first != DELETED and kind & LABEL and kind & 0x3F != LONG:
                return printable(piece[at : at + 11]).strip()
        done += len(piece)
    return ""


def _node(raw):
    high, low, size = struct.unpack_from("<H4xHI", raw, 20)
    kind = FOLDER if raw[11] & DIRECTORY else FILE
    return Node(kind, high << 16 | low, size)


def _short(raw):
    """Return the short name."""
    base, end = raw[:8].rstrip(), raw[8:11].rstrip()
    if base[:1] == b"\x05":
        base = b"\xe5" + base[1:]
    if raw[12] & 0x08:
        base = base.lower()
    if raw[12] & 0x10:
        end = end.lower()
    return base + b"." + end if end else base


class _Long:
    """The parts of a long name, as they come: the last one first."""

    def __init__(self):
        self._parts = []
        self._next = 0
        self._sum = 0

    def drop(self):
        self._parts = []
        self._next = 0

    def add(self, raw):
        number = raw[0]
        if number & LAST:
            self._parts = []
            self._sum = raw[13]
            self._next = number & 0x3F
            if self._next > PARTS_MAX:
                self._next = 0
        if not self._next or number & 0x3F != self._next or raw[13] != self._sum:
            self.drop()
            return
        self._parts.append(raw[1:11] + raw[14:26] + raw[28:32])
        self._next -= 1

    def take(self, raw):
        """Return the name before a short entry, None if there is none of it; and forget it."""
        parts = self._parts if self._next == 0 else []
        self._parts = []
        self._next = 0
        if not parts or _checksum(raw) != self._sum:
            return None
        parts.reverse()
        return _utf8(b"".join(parts))


def _checksum(raw):
    value = 0
    for c in raw[:11]:
        value = ((value >> 1) + ((value & 1) << 7) + c) & 0xFF
    return value


def _utf8(raw):
    """Return little-endian UTF-16 up to a NUL as UTF-8."""
    found = []
    high = 0
    for i in range(0, len(raw), 2):
        code = raw[i] | raw[i + 1] << 8
        if code == 0:
            break
        if 0xD800 <= code < 0xDC00:
            high = code
            continue
        if 0xDC00 <= code < 0xE000:
            # Half a pair is no character.
            code = 0x10000 + ((high & 0x3FF) << 10) + (code & 0x3FF) if high else 63
        high = 0
        found.append(chr(code))
    return "".join(found).encode()
