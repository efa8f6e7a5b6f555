"""The extents of a file on the device of its file system, as FIEMAP gives them.

Used by locate.py. The rule: what may not be written behind the file system's back is refused by the
name of its flag; a hole or an extent of less than whole pages is refused too.
Source: Linux include/uapi/linux/fiemap.h, Documentation/filesystems/fiemap.rst.
"""

from __future__ import annotations

import fcntl
import struct
from pathlib import Path

from ..dump.disk import PAGE, DiskError

FS_IOC_FIEMAP = 0xC020660B
FIEMAP_FLAG_SYNC = 1
HEAD = struct.Struct("<QQIIII")  # start, length, flags, mapped, count, reserved
EXTENT = struct.Struct("<QQQ16xI12x")  # logical, physical, length, flags
AT_ONCE = 256
MOST = 65536  # extents that are looked at
LAST, MERGED = 0x1, 0x1000
REFUSED = {
    0x2: "UNKNOWN",
    0x4: "DELALLOC",
    0x8: "ENCODED",
    0x80: "DATA_ENCRYPTED",
    0x100: "NOT_ALIGNED",
    0x200: "DATA_INLINE",
    0x400: "DATA_TAIL",
    0x800: "UNWRITTEN",
    0x2000: "SHARED",
}
MEANING = {
    "UNKNOWN": "its place is not known",
    "DELALLOC": "it has no place yet",
    "ENCODED": "compressed or encrypted",
    "DATA_ENCRYPTED": "encrypted",
    "NOT_ALIGNED": "it is no whole blocks",
    "DATA_INLINE": "it is among the metadata",
    "DATA_TAIL": "it shares a block with other files",
    "UNWRITTEN": "what is written to it past the file system reads as zeros, as after fallocate",
    "SHARED": "other files have it too, as after cp --reflink",
}


class Unwritten(DiskError):
    """A file has extents that were never written."""


def extents(fd: int, path: Path, size: int) -> list[tuple[int, int]]:
    """Return the extents of a file, in its order.

    Args:
        fd: of the file, open for reading.
        path: its name, for messages.
        size: its bytes, whole pages.

    Returns:
        for each its offset on the file system's device, and its length, bytes.

    Raises:
        DiskError: an extent is not to be written, or the file system does not tell.
    """
    found = []
    at = 0
    while at < size:
        for logical, physical, length, flags in _read(fd, path, at, size - at):
            _check(path, at, logical, physical, length, flags)
            length = min(length, size - at)
            found.append((physical, length))
            at += length
            if at == size:
                break
            if flags & LAST:
                raise DiskError(f"{path} has a hole at byte {at}; a target has all its blocks")
        if len(found) > MOST:
            raise DiskError(f"{path} has more than {MOST} extents")
    return found


def _read(fd: int, path: Path, at: int, length: int) -> list[tuple[int, ...]]:
    buffer = bytearray(HEAD.size + AT_ONCE * EXTENT.size)
    HEAD.pack_into(buffer, 0, at, length, FIEMAP_FLAG_SYNC, 0, AT_ONCE, 0)
    try:
        fcntl.ioctl(fd, FS_IOC_FIEMAP, buffer)
    except OSError as error:
        raise DiskError(f"{path}: its file system tells no extents: {error.strerror}") from error
    mapped = HEAD.unpack_from(buffer)[3]
    if not 0 < mapped <= AT_ONCE:
        raise DiskError(f"{path} has a hole at byte {at}; a target has all its blocks")
    return [EXTENT.unpack_from(buffer, HEAD.size + i * EXTENT.size) for i in range(mapped)]


def _check(path: Path, at: int, logical: int, physical: int, length: int, flags: int) -> None:
    for flag, name in REFUSED.items():
        if flags & flag:
            kind = Unwritten if name == "UNWRITTEN" else DiskError
            raise kind(f"{path}: extent at byte {logical}: {name}: {MEANING[name]}")
    if more := flags & ~(LAST | MERGED):
        raise DiskError(f"{path}: extent at byte {logical}: flags 0x{more:x} are not known")
    if logical > at:
        raise DiskError(f"{path} has a hole at byte {at}; a target has all its blocks")
    if logical < at or length == 0 or physical % PAGE or length % PAGE:
        raise DiskError(
            f"{path}: extent at byte {logical} is not whole pages of {PAGE} bytes: it has {length} "
            f"bytes at byte {physical}; the file system needs blocks of {PAGE}: mkfs -b {PAGE}"
        )
