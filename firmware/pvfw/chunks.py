"""The chunks of a dump's stream: what stands on a target behind its superblock.

Written by stream, read by `pvdump collect`. A stream is a sequence of chunks, each at a multiple of
PAGE_SIZE bytes from the stream's start, with zeros up to the next multiple behind it. Rules:
nothing that was written is changed, so the chunks up to wherever the stream ends are whole; every
byte is covered by a check; a header names its dump and its place, so that no chunk of an older
dump, or of another place, is taken for one of this.

Header, little-endian, 48 bytes, the payload right behind it:

    offset  size  field
         0     4  magic "PVC\\n"
         4     4  kind
         8     8  dump: the id of the dump, which the superblock has as well
        16     8  offset: where the chunk begins, bytes from the stream's start
        24     4  size: bytes of the payload
        28     4  CRC-32 of the payload
        32     8  value, by kind
        40     4  count, by kind
        44     4  CRC-32 of bytes 0 to 43

Kinds:

    1 FACTS       lines KEY=VALUE: release, started, vcpu, level, and where it is known cause: why
                  the kernel died, at most 128 printable characters. The first chunk.
    2 MEMORY      count ranges of the crashed kernel's memory: physical address, bytes, virtual
                  address or 0, u64 each; the ranges of its own mapping come first
    3 NOTES       ELF notes, as in a PT_NOTE: of the CPUs, and VMCOREINFO
    4 LOG         text of the kernel's log, UTF-8, whole lines
    5 PAGES       pages one by one: their data one behind the other, then from payload offset
                  `value` on a table of count entries, u64: bits 32-63 the page's frame number, bits
                  0-15 the bytes of its data: 1 to 4095 a zstd frame, 4096 the page as it is, 0
                  zeros without data. Of zeros bits 16-31 say how many pages follow the first
    6 RAW         count entries of frame number, u64, and CRC-32 of the page, u32; then, from the
                  next multiple of PAGE_SIZE on, the count pages as they are
    7 UNREADABLE  count runs of pages that could not be read: first frame number, pages, u64 each
    8 INDEX       count places of chunks, since the INDEX before: offset, u64, and kind, u32. value:
                  where the INDEX before begins, 0 without one
   10 AGE         bytes of an age file, whose content is a stream of the other kinds. Where there is
                  one, all are. value: where in the file they stand; count: 1 if they end it, else 0
    9 MANIFEST    lines KEY=VALUE: pages by class, and totals. The last chunk. value: where the last
                  INDEX begins; count: chunks before this one. Its line `chain` is the CRC-32 of all
                  headers before it, one behind the other
"""

import binascii
import struct

MAGIC = b"PVC\n"
PAGE_SIZE = 4096
HEADER = "<4sIQQIIQI"
HEADER_SIZE = 48
_CRC_AT = 44
FACTS, MEMORY, NOTES, LOG, PAGES, RAW, UNREADABLE, INDEX, MANIFEST, AGE = range(1, 11)
NAMES = {
    FACTS: "facts",
    MEMORY: "memory",
    NOTES: "notes",
    LOG: "log",
    PAGES: "pages",
    RAW: "raw pages",
    UNREADABLE: "unreadable pages",
    INDEX: "index",
    MANIFEST: "manifest",
    AGE: "encrypted bytes",
}
# An age file begins so.
AGE_INTRO = b"age-encryption.org/v1\n"
# Bytes of a payload; of a RAW chunk, pages.
PAYLOAD_MAX = 1 << 20
RAW_MAX = 256
RANGE = "<QQQ"
RAW_ENTRY = "<QI"
RUN = "<QQ"
PLACE = "<QI"
RANGE_SIZE = 24
RAW_ENTRY_SIZE = 12
RUN_SIZE = 16
PLACE_SIZE = 12
ENTRY_SIZE = 8


class Header:
    """The header of a chunk.

    Attributes: kind, dump, offset, size, crc, value and count, as in the layout.
    """

    def __init__(self, kind, dump, offset, size, crc, value=0, count=0):
        self.kind = kind
        self.dump = dump
        self.offset = offset
        self.size = size
        self.crc = crc
        self.value = value
        self.count = count

    def encode(self):
        """Return the HEADER_SIZE bytes."""
        fields = (self.kind, self.dump, self.offset, self.size, self.crc, self.value, self.count)
        raw = struct.pack(HEADER, MAGIC, *fields)
        return raw + struct.pack("<I", binascii.crc32(raw))

    def length(self):
        """Return how many bytes the chunk takes, with the zeros behind it."""
        pages = self.count if self.kind == RAW else 0
        return padded(HEADER_SIZE + self.size) + pages * PAGE_SIZE


def padded(size):
    """Return the next multiple of PAGE_SIZE."""
    return (size + PAGE_SIZE - 1) // PAGE_SIZE * PAGE_SIZE


def decode(raw, dump, offset):
    """Read the header in the first HEADER_SIZE bytes of a chunk.

    Args:
        raw: bytes or memoryview.
        dump: id of the dump that it must be of; None for any.
        offset: where it was read, bytes from the stream's start.

    Returns: Header, or None where this is no whole header of that dump and place.
    """
    raw = bytes(raw[:HEADER_SIZE])
    if len(raw) < HEADER_SIZE or raw[: len(MAGIC)] != MAGIC:
        return None
    if binascii.crc32(raw[:_CRC_AT]) != struct.unpack_from("<I", raw, _CRC_AT)[0]:
        return None
    header = Header(*struct.unpack_from(HEADER, raw, 0)[1:])
    if dump not in (None, header.dump) or header.offset != offset or header.kind not in NAMES:
        return None
    if header.size > PAYLOAD_MAX or (header.kind == RAW and header.count > RAW_MAX):
        return None
    return header
