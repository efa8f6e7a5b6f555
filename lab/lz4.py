"""LZ4 in its legacy form, in which Debian's smaller kernels are compressed.

Used by kernel.py; a kernel takes a few seconds. Source: lz4 doc/lz4_Block_format.md,
doc/lz4_Frame_format.md ("Legacy frame").
"""

from __future__ import annotations

import struct

from lab import LabError

MAGIC = b"\x02\x21\x4c\x18"


def decompress(data: bytes) -> bytes:
    """Return what a legacy frame holds; what stands behind its last block is left.

    Raises:
        LabError: it is damaged.
    """
    blocks, at = [], len(MAGIC)
    while at + 4 <= len(data):
        (size,) = struct.unpack_from("<I", data, at)
        at += 4
        if size > len(data) - at:  # the unpacked size, which the kernel's build appends
            break
        try:
            blocks.append(_block(data[at : at + size]))
        except IndexError:
            raise LabError(f"LZ4: the block at byte {at} is damaged") from None
        at += size
    return b"".join(blocks)


def _block(data: bytes) -> bytes:
    out, at = bytearray(), 0
    while at < len(data):
        token = data[at]
        literals, at = _length(token >> 4, data, at + 1)
        out += data[at : at + literals]
        at += literals
        if at >= len(data):  # the last sequence has no match
            break
        distance = data[at] | data[at + 1] << 8
        length, at = _length(token & 15, data, at + 2)
        length += 4
        if not 0 < distance <= len(out):
            raise IndexError
        start = len(out) - distance
        if distance >= length:
            out += out[start : start + length]
        else:  # the match goes on in what it copies
            out += (out[start:] * (length // distance + 1))[:length]
    return bytes(out)


def _length(first: int, data: bytes, at: int) -> tuple[int, int]:
    """Read a length that four bits of the token begin. Returns it, and where the next byte is."""
    length = first
    more = first == 15
    while more:
        length += data[at]
        more = data[at] == 255
        at += 1
    return length, at
