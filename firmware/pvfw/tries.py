"""The counter of boots on a dump target: which entries of the menu were entered, and how often.

pvboot counts an entry before it enters its kernel (kernel/counter.py), `pvdump booted` takes that
back when the guest is up, `pvdump info` shows it. It is one sector, the first of the page at AT of
a target; the rest of that page is zeros. It stands between the superblock and the dump, so neither
reaches it; of swap that page is the kernel's, so swap has no counter. Rules: the guest makes the
sector, and pvboot counts only where it is; a sector that is damaged counts nothing.

Layout, little-endian, 512 bytes:

    offset  size  field
         0     8  magic "PVTRIES\\n"
         8     4  version, 1
        12     4  generation: one more at each write
        16     4  open: 1 while the boot of the first record's entry has not ended, else 0
        20     4  records, 0 to 30
        24    16  each record, that of the entry entered last first: 12 bytes of the entry's key,
                  and 4 of the number of its boots that did not end, 1 to 255
       508     4  CRC-32 of bytes 0 to 507

The bytes between are zeros.
"""

import binascii
import struct

MAGIC = b"PVTRIES\n"
VERSION = 1
SIZE = 512
AT = 4096
PAGE = 4096
KEY_SIZE = 12
RECORDS_MAX = 30
COUNT_MAX = 255
# Where a target that is a file is looked for, in each ext4: /var/crash may be mounted, or /var.
PATHS = ("/var/crash/pvdump.img", "/crash/pvdump.img", "/pvdump.img")
_HEAD = "<8sIIII"
_RECORD = "<12sI"
_RECORDS_AT = 24
_CRC_AT = 508


class Tries:
    """The counts, by default none.

    Attributes:
        generation: of the sector.
        is_open: whether the boot of the first record's entry has not ended.
        records: (key, count) of each entry, that of the one entered last first.
        problem: what was wrong with the sector, or "".
    """

    def __init__(self):
        self.generation = 0
        self.is_open = False
        self.records = []
        self.problem = ""

    def count(self, key):
        """Return how many boots of an entry did not end."""
        for known, count in self.records:
            if known == key:
                return count
        return 0

    def enter(self, key):
        """Count a boot of an entry, which begins."""
        count = min(self.count(key) + 1, COUNT_MAX)
        others = [record for record in self.records if record[0] != key]
        self.records = [(key, count)] + others[: RECORDS_MAX - 1]
        self.is_open = True

    def end(self):
        """Take back the count of the entry entered last, whose boot has ended well."""
        if self.is_open:
            self.records = self.records[1:]
        self.is_open = False

    def encode(self):
        """Return the 512 bytes of the next generation."""
        self.generation = (self.generation + 1) & 0xFFFFFFFF
        raw = bytearray(SIZE)
        head = (MAGIC, VERSION, self.generation, int(self.is_open), len(self.records))
        struct.pack_into(_HEAD, raw, 0, *head)
        for i, (key, count) in enumerate(self.records):
            struct.pack_into(_RECORD, raw, _RECORDS_AT + 16 * i, key, count)
        struct.pack_into("<I", raw, _CRC_AT, binascii.crc32(memoryview(raw)[:_CRC_AT]))
        return bytes(raw)


def decode(raw):
    """Read the sector.

    Args:
        raw: its 512 bytes.

    Returns: Tries, without any counts where the sector is damaged; None where there is no counter,
    or one of a version that is not known here.
    """
    raw = bytes(raw[:SIZE])
    if len(raw) < SIZE or raw[: len(MAGIC)] != MAGIC:
        return None
    _, version, generation, is_open, number = struct.unpack_from(_HEAD, raw, 0)
    found = Tries()
    if binascii.crc32(memoryview(raw)[:_CRC_AT]) != struct.unpack_from("<I", raw, _CRC_AT)[0]:
        found.problem = "damaged (CRC)"
        return found
    if version != VERSION:
        return None
    found.generation = generation
    records = []
    if number <= RECORDS_MAX:
        for i in range(number):
            records.append(struct.unpack_from(_RECORD, raw, _RECORDS_AT + 16 * i))
    keys = [key for key, _ in records]
    if number > RECORDS_MAX or is_open > 1 or is_open > number:
        found.problem = "damaged: %d records, open %d" % (number, is_open)
    elif [key for key in keys if keys.count(key) > 1]:
        found.problem = "damaged: an entry twice"
    elif [count for _, count in records if not 0 < count <= COUNT_MAX]:
        found.problem = "damaged: a count that is none of 1 to %d" % COUNT_MAX
    else:
        found.records, found.is_open = records, bool(is_open)
    return found
