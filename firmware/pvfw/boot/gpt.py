"""GUID partition table: the header, its copy at the disk's end, and the entries.

Read by partitions.py. Rule: a header counts if its CRC and that of the entries are right and it
says of itself where it was read; where the first does not count, the copy does.
Units: logical blocks of the disk, which has sector_size bytes in each.
Source: UEFI specification 2.10, chapter 5.3; Linux block/partitions/efi.c.
"""

import binascii
import struct

from .area import READ_MAX
from .errors import Damaged

MAGIC = b"EFI PART"
# signature revision header_size crc reserved my_lba alternate_lba first last guid entries_lba
# number entry_size entries_crc
HEADER = "<8sIIIIQQQQ16sQIII"
HEADER_SIZE = 92
ENTRY = "<16s16sQQQ72s"
ENTRY_SIZE = 128
ENTRY_SIZE_MAX = 4096
ENTRIES_BYTES_MAX = 256 << 10
UNUSED = bytes(16)


def guid(raw):
    """Return 16 bytes of a GUID as it is written, in lower case."""
    a, b, c = struct.unpack_from("<IHH", raw, 0)
    rest = binascii.hexlify(raw[8:16]).decode()
    return "%08x-%04x-%04x-%s-%s" % (a, b, c, rest[:4], rest[4:])


async def read(area, unit):
    """Read the table.

    Args:
        area: Area of the whole disk.
        unit: bytes of a logical block.

    Returns: (list of (number from 1 on, type, guid, first block, last block), a note or None).
    Raises: Damaged if no header counts; Exhausted, XenError.
    """
    try:
        return await _entries(area, unit, 1), None
    except Damaged as e:
        problem = str(e)
    try:
        return await _entries(area, unit, area.size // unit - 1), "%s; its copy is used" % problem
    except Damaged as e:
        raise Damaged("%s; and of the copy: %s" % (problem, e))


async def _entries(area, unit, lba):
    where = "%s: GPT header in block %d" % (area.name, lba)
    raw = await area.read(lba * unit, unit)
    fields = struct.unpack_from(HEADER, raw, 0)
    size, crc = fields[2], fields[3]
    if fields[0] != MAGIC:
        raise Damaged("%s: no signature" % where)
    if not HEADER_SIZE <= size <= unit:
        raise Damaged("%s: %d bytes, %d to %d expected" % (where, size, HEADER_SIZE, unit))
    if binascii.crc32(raw[:16] + bytes(4) + raw[20:size]) != crc:
        raise Damaged("%s: wrong CRC" % where)
    if fields[5] != lba:
        raise Damaged("%s: says that it is in block %d" % (where, fields[5]))
    at, number, each, crc = fields[10:]
    if each < ENTRY_SIZE or each > ENTRY_SIZE_MAX or each % ENTRY_SIZE:
        raise Damaged("%s: entries of %d bytes" % (where, each))
    if number * each > ENTRIES_BYTES_MAX:
        raise Damaged("%s: %d entries of %d bytes" % (where, number, each))
    return await _used(area, at * unit, number, each, crc, where)


async def _used(area, at, number, each, crc, where):
    """Read the entries. Returns those in use; raises Damaged if their CRC is wrong."""
    found = []
    sum_ = 0
    done = 0
    while done < number:
        count = min(number - done, READ_MAX // each)
        raw = await area.read(at + done * each, count * each)
        sum_ = binascii.crc32(raw, sum_)
        for i in range(count):
            kind, uuid, first, last, _, _ = struct.unpack_from(ENTRY, raw, i * each)
            if kind != UNUSED:
                found.append((done + i + 1, guid(kind), guid(uuid), first, last))
        done += count
    if sum_ != crc:
        raise Damaged("%s: wrong CRC of the entries" % where)
    return found
