"""The superblock of a dump target, without which pvdump writes to no disk.

`pvdump prepare` writes it, the dump agent checks and updates it, `pvdump collect` and `pvdump
info` read it. It is the first sector of the target; from version 2 on a copy of it begins the last
COPY_SIZE bytes. The dump stands from DATA_OFFSET on. Rules: only a target whose state is READY is
written, so that a dump which nobody has collected is kept; the image writes only version 2, whose
dumps are streams (chunks.py), while version 1, whose dumps are ELF vmcores, can still be read.

Layout, little-endian, 512 bytes:

    offset  size  field
         0     8  magic "PVDUMP\\r\\n"
         8     4  version, 2
        12     4  state: 1 ready, 2 writing, 3 complete, 4 partial
        16    16  uuid of the target, made by prepare
        32     8  size: bytes of the target
        40     8  data_offset: where the dump begins
        48     8  dump_size: bytes of the dump; in version 2 0 until it is complete
        56     8  written: bytes of the dump, from its start, known to be on the target
        64     8  started: seconds since 1970, UTC
        72     8  ended: likewise
        80     4  crash_vcpu: vCPU that crashed, 0xffffffff unknown
        84    64  release: kernel release, NUL-padded
       148   192  reason: why a dump is partial, NUL-padded
       340     8  collected: when `pvdump collect` had copied the dump, as started; 0 not yet
       348     8  dump: id of the dump, which its chunks have as well
       356     4  format: 0 ELF vmcore, 1 stream, 2 stream in an age file
       360     4  level: which pages were to be left out, as makedumpfile's -d; 255: all but the
                  stacks
       364     4  algorithm: 0 none, 1 zstd
       368    32  nonce: of the time when the image was armed
       508     4  CRC-32 of bytes 0 to 507

The bytes between are zeros, and so is in version 1 what follows `collected`.
"""

import binascii
import struct

from xenpv.text import printable

from .errors import NoSuperblock, OtherVersion, TargetRefused

MAGIC = b"PVDUMP\r\n"
VERSION = 2
VERSION_ELF = 1
SUPERBLOCK_SIZE = 512
# Bytes at the target's end that the copy has.
COPY_SIZE = 4096
MIB = 1 << 20
SIZE_MAX = (1 << 63) - 1  # bytes, as off_t
DATA_OFFSET = MIB
READY = 1
WRITING = 2
COMPLETE = 3
PARTIAL = 4
STATE_NAMES = {READY: "ready", WRITING: "writing", COMPLETE: "complete", PARTIAL: "partial"}
UNKNOWN_VCPU = 0xFFFFFFFF
FORMAT_ELF = 0
FORMAT_STREAM = 1
FORMAT_AGE = 2
ALGORITHM_NONE = 0
ALGORITHM_ZSTD = 1
ALGORITHM_NAMES = {ALGORITHM_NONE: "none", ALGORITHM_ZSTD: "zstd"}
_FIELDS = "<8sII16sQQQQQQI64s192sQQIII32s"
_CRC_AT = 508


class Superblock:
    """A superblock, by default of a target that is ready.

    Args:
        uuid: 16 bytes.
        size: bytes of the target.

    Attributes: the fields of the layout, with their names there.
    """

    def __init__(self, uuid, size):
        self.version = VERSION
        self.state = READY
        self.uuid = uuid
        self.size = size
        self.data_offset = DATA_OFFSET
        self.dump_size = 0
        self.written = 0
        self.started = 0
        self.ended = 0
        self.crash_vcpu = UNKNOWN_VCPU
        self.release = ""
        self.reason = ""
        self.collected = 0
        self.dump = 0
        self.format = FORMAT_STREAM
        self.level = 0
        self.algorithm = ALGORITHM_NONE
        self.nonce = bytes(32)

    def room(self):
        """Return how many bytes a dump may have."""
        copy = COPY_SIZE if self.version != VERSION_ELF else 0
        return max(self.size - self.data_offset - copy, 0)

    def copy_at(self):
        """Return where the copy of the superblock is, bytes; None where there is none."""
        return None if self.version == VERSION_ELF else self.size - COPY_SIZE

    def encode(self):
        """Return the 512 bytes of the superblock; texts are cut to their fields."""
        raw = bytearray(SUPERBLOCK_SIZE)
        struct.pack_into(
            _FIELDS,
            raw,
            0,
            MAGIC,
            self.version,
            self.state,
            self.uuid,
            self.size,
            self.data_offset,
            self.dump_size,
            self.written,
            self.started,
            self.ended,
            self.crash_vcpu,
            _text(self.release, 64),
            _text(self.reason, 192),
            self.collected,
            self.dump,
            self.format,
            self.level,
            self.algorithm,
            self.nonce,
        )
        struct.pack_into("<I", raw, _CRC_AT, binascii.crc32(memoryview(raw)[:_CRC_AT]))
        return bytes(raw)


def decode(raw):
    """Read the superblock in the first 512 bytes of a target.

    Raises TargetRefused when it is none, damaged, or contradicts itself; OtherVersion, which is a
    TargetRefused, when it is whole and of another version.
    """
    raw = bytes(raw[:SUPERBLOCK_SIZE])
    if len(raw) < SUPERBLOCK_SIZE or raw[: len(MAGIC)] != MAGIC:
        raise NoSuperblock("no pvdump superblock: run `pvdump prepare` on this disk first")
    if binascii.crc32(memoryview(raw)[:_CRC_AT]) != struct.unpack_from("<I", raw, _CRC_AT)[0]:
        raise TargetRefused(
            "the superblock is damaged (CRC): `pvdump collect --salvage` gets a dump behind it"
        )
    fields = struct.unpack_from(_FIELDS, raw, 0)
    if fields[1] not in (VERSION_ELF, VERSION):
        raise OtherVersion(
            "superblock version %d, this pvdump knows %d to %d" % (fields[1], VERSION_ELF, VERSION)
        )
    block = Superblock(fields[3], fields[4])
    block.version = fields[1]
    block.state = fields[2]
    block.data_offset = fields[5]
    block.dump_size = fields[6]
    block.written = fields[7]
    block.started = fields[8]
    block.ended = fields[9]
    block.crash_vcpu = fields[10]
    block.release = printable(fields[11].partition(b"\0")[0])
    block.reason = printable(fields[12].partition(b"\0")[0])
    block.collected = fields[13]
    block.dump, block.format, block.level, block.algorithm, block.nonce = fields[14:19]
    _check(block)
    return block


def refusal(block, disk_size, read_only, size):
    """Tell why a dump may not or cannot go to a target.

    Args:
        block: its Superblock.
        disk_size: bytes of the disk it is on.
        read_only: whether the disk is.
        size: bytes that the dump has at least.

    Returns: a message, or None where it can.
    """
    if read_only:
        return "the disk is read-only: give the guest write access to it"
    if block.state != READY:
        return (
            "it holds a dump (%s): `pvdump collect` it, then `pvdump prepare --again` the disk"
            % STATE_NAMES[block.state]
        )
    if block.version != VERSION:
        return "an older pvdump prepared it: `pvdump prepare --again` the disk"
    if disk_size < block.size:
        return "the disk has become smaller than its superblock says: `pvdump prepare` it anew"
    if block.room() < size:
        return "it is too small: the dump has %d KiB at least, there is room for %d KiB" % (
            (size + 1023) // 1024,
            block.room() // 1024,
        )
    return None


def _check(block):
    for name in ("size", "data_offset", "dump_size", "written"):
        if getattr(block, name) > SIZE_MAX:
            raise TargetRefused(
                "the superblock is damaged: %s %d is more than any disk has"
                % (name, getattr(block, name))
            )
    if block.state not in STATE_NAMES:
        raise TargetRefused("the superblock is damaged: state %d is none of 1 to 4" % block.state)
    if block.data_offset % 4096 or not SUPERBLOCK_SIZE < block.data_offset <= block.size:
        raise TargetRefused(
            "the superblock is damaged: data_offset %d does not fit a target of %d bytes"
            % (block.data_offset, block.size)
        )
    known = (FORMAT_ELF,) if block.version == VERSION_ELF else (FORMAT_STREAM, FORMAT_AGE)
    if block.format not in known:
        raise TargetRefused("the superblock is damaged: format %d is not known" % block.format)
    most = block.dump_size or (0 if block.version == VERSION_ELF else block.room())
    if block.dump_size > block.room() or block.written > most:
        raise TargetRefused(
            "the superblock is damaged: sizes contradict each other: written %d, dump %d, target "
            "%d bytes" % (block.written, block.dump_size, block.size)
        )


def _text(text, size):
    raw = text.encode()[:size]
    return raw + bytes(size - len(raw))
