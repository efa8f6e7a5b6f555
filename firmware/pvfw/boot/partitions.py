"""Partition tables: GPT (gpt.py), MBR with logical partitions, or none.

Used by volumes.py. Rules: a partition that is not wholly on the disk, or is empty, is passed over
with a note; the chain of logical partitions ends at a bound, and at the first that was there
before. A boot sector whose flags are none of an MBR's is a file system's: there is no table.
Source: UEFI specification 2.10, chapter 5.2; Linux block/partitions/msdos.c.
"""

import struct

from . import gpt
from .errors import Damaged

SIGNATURE = b"\x55\xaa"
TABLE_AT = 446
# flag head sector cylinder type head sector cylinder first sectors
ENTRY = "<BBBBBBBBII"
ENTRY_SIZE = 16
PROTECTIVE = 0xEE
EXTENDED = (0x05, 0x0F, 0x85)
LOGICAL_MAX = 64
PARTITIONS_MAX = 128
NOTES_MAX = 16
GPT = "gpt"
MBR = "msdos"


class Partition:
    """A partition.

    Attributes: number, as Linux counts; kind, the type's GUID or "0x83"; uuid, what Linux calls
    PARTUUID; first and size, bytes.
    """

    def __init__(self, number, kind, uuid, first, size):
        self.number = number
        self.kind = kind
        self.uuid = uuid
        self.first = first
        self.size = size


class Table:
    """The partitions of a disk.

    Attributes: scheme, GPT, MBR or None; partitions, a list of Partition; notes, what was passed
    over, a line each.
    """

    def __init__(self, area, unit, scheme):
        self._area = area
        self._unit = unit
        self.scheme = scheme
        self.partitions = []
        self.notes = []

    def add(self, number, kind, uuid, first, count):
        """Add a partition of `count` blocks from block `first` on, unless it cannot be."""
        size = self._area.size
        end = (first + count) * self._unit
        if count <= 0 or first <= 0 or end > size:
            last, blocks = first + count - 1, size // self._unit
            self.note(
                "partition %d passed over: blocks %d to %d, but the disk has %d"
                % (number, first, last, blocks)
            )
            return
        if len(self.partitions) == PARTITIONS_MAX:
            raise Damaged("%s: more than %d partitions" % (self._area.name, PARTITIONS_MAX))
        first, count = first * self._unit, count * self._unit
        self.partitions.append(Partition(number, kind, uuid, first, count))

    def note(self, text):
        """Note what was passed over, up to a bound."""
        if len(self.notes) < NOTES_MAX:
            self.notes.append("%s: %s" % (self._area.name, text))


async def read(area):
    """Read the partition table of a disk.

    Args:
        area: Area of the whole disk.

    Returns: Table. Raises: Damaged, Exhausted, XenError.
    """
    unit = area.disk.sector_size
    if area.size < 2 * unit:
        return Table(area, unit, None)
    raw = await area.read(0, unit)
    entries = _entries(raw)
    if entries is None:
        return Table(area, unit, None)
    if PROTECTIVE in [entry[0] for entry in entries]:
        table = Table(area, unit, GPT)
        found, note = await gpt.read(area, unit)
        if note is not None:
            table.notes.append(note)
        for number, kind, uuid, first, last in found:
            table.add(number, kind, uuid, first, last - first + 1)
        return table
    table = Table(area, unit, MBR)
    disk = struct.unpack_from("<I", raw, 440)[0]
    for i, (kind, first, count) in enumerate(entries):
        if kind in EXTENDED:
            await _logical(area, unit, table, disk, first, count)
        elif kind and count:
            _add(table, disk, i + 1, kind, first, count)
    return table


def _add(table, disk, number, kind, first, count):
    table.add(number, "0x%02x" % kind, "%08x-%02x" % (disk, number), first, count)


def _entries(raw):
    """Return (type, first, blocks) of the four entries of a boot sector; None if there are none."""
    if raw[510:512] != SIGNATURE:
        return None
    found = []
    for i in range(4):
        fields = struct.unpack_from(ENTRY, raw, TABLE_AT + i * ENTRY_SIZE)
        if fields[0] not in (0, 0x80):
            return None
        found.append((fields[4], fields[8], fields[9]))
    return found


async def _logical(area, unit, table, disk, begin, count):
    """Add the logical partitions of an extended one, which begins at a block."""
    at = begin
    seen = []
    number = 5 + len([each for each in table.partitions if each.number >= 5])
    while True:
        if at in seen or len(seen) == LOGICAL_MAX:
            what = "a loop" if at in seen else "more than %d" % LOGICAL_MAX
            raise Damaged("%s: logical partitions: %s" % (area.name, what))
        seen.append(at)
        entries = _entries(await area.read(at * unit, unit))
        if entries is None:
            table.note("no logical partition in block %d" % at)
            return
        following = None
        for kind, first, blocks in entries[:2]:
            if kind in EXTENDED:
                following = begin + first if blocks else None
            elif kind and blocks:
                _add(table, disk, number, kind, at + first, blocks)
                number += 1
        if following is None:
            return
        if not begin <= following < begin + count:
            raise Damaged("%s: a logical partition outside the extended one" % area.name)
        at = following
