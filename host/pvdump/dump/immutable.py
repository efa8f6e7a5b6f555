"""The attribute "immutable" of files, which a target in a file system has: chattr(1).

Used by disk.py, by place/create.py and by arm. The rule: it is off only while a superblock is
written.
Source: Linux include/uapi/linux/fs.h.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
from collections.abc import Iterator
from pathlib import Path

from pvfw.errors import DumpError

from ..streams import pasted

FS_IOC_GETFLAGS, FS_IOC_SETFLAGS = 0x80086601, 0x40086602
IMMUTABLE = 0x10


def attributes(fd: int) -> int:
    """Return the attributes of a file as chattr has them; 0 where its file system has none."""
    buffer = bytearray(8)
    try:
        fcntl.ioctl(fd, FS_IOC_GETFLAGS, buffer)
    except OSError:
        return 0
    flags: int = struct.unpack_from("<I", buffer)[0]
    return flags


def set_immutable(fd: int, path: Path, wanted: bool) -> None:
    """Set or clear the attribute "immutable" of a file, as chattr +i does.

    Raises:
        DumpError: it cannot be.
    """
    flags = attributes(fd)
    flags = flags | IMMUTABLE if wanted else flags & ~IMMUTABLE
    try:
        fcntl.ioctl(fd, FS_IOC_SETFLAGS, struct.pack("<Q", flags))
    except OSError as error:
        sign = "+" if wanted else "-"
        raise DumpError(f"chattr {sign}i {pasted(path)}: {error.strerror}") from error


@contextlib.contextmanager
def mutable(path: Path) -> Iterator[None]:
    """Let a file that is immutable be written meanwhile.

    Raises:
        DumpError: this user may not do so.
    """
    fd = -1
    try:
        with contextlib.suppress(OSError):
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        if fd < 0 or not attributes(fd) & IMMUTABLE:
            yield
            return
        set_immutable(fd, path, False)
        try:
            yield
        finally:
            set_immutable(fd, path, True)
    finally:
        if fd >= 0:
            os.close(fd)
