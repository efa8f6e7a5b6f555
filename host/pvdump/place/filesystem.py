"""The file system that a file is on.

Used by locate.py and create.py. The rule: only file systems are accepted that leave the blocks of a
file where they are, and whose journal has no data: ext4 and xfs.
Source: Linux include/uapi/linux/{magic,fs}.h; proc_pid_mountinfo(5); fs/ext4/super.c
(ext4_seq_options_show).
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import struct
from pathlib import Path

from pvfw.errors import DumpError

from ..dump.immutable import attributes
from ..streams import pasted

MOUNTS = Path("/proc/self/mountinfo")
PROC_EXT4 = Path("/proc/fs/ext4")
SYS_DEV_BLOCK = Path("/sys/dev/block")
MAGICS = {0xEF53: "ext4", 0x58465342: "xfs"}
STATFS = 256  # bytes, more than the structure; it begins with the magic
FS_IOC_FSGETXATTR = 0x801C581F
JOURNAL_DATA = 0x4000
REALTIME = 1
XATTR = 28  # bytes of struct fsxattr; it begins with the flags


class FileSystemError(DumpError):
    """A file system cannot have a target."""


def check(fd: int, path: Path) -> None:
    """Refuse a file, or a folder for files, that a target cannot be in.

    Raises:
        FileSystemError: the file system or an attribute does not allow it.
    """
    device = os.fstat(fd).st_dev
    kinds, options = _mounted(device)
    magic = _magic(fd)
    if magic not in MAGICS or MAGICS[magic] not in kinds:
        kind = ", ".join(sorted(kinds)) or f"of magic 0x{magic:x}"
        raise FileSystemError(f"{path} is on a file system {kind}: ext4 or xfs is needed")
    if "data=journal" in options | _ext4_options(device):
        raise FileSystemError(
            f"{path}: the file system journals data (data=journal), so that after a crash older "
            "data would be written over the dump: mount it with data=ordered"
        )
    flags = attributes(fd)
    if flags & JOURNAL_DATA and magic == 0xEF53:
        raise FileSystemError(
            f"{path}: its data is journaled (chattr +j): chattr -j {pasted(path)}"
        )
    if magic == 0x58465342 and _xflags(fd) & REALTIME:
        raise FileSystemError(f"{path} is on the realtime device of its xfs")


def unescaped(name: str) -> str:
    r"""Return a name of /proc, such as one of MOUNTS, without its \040."""
    return name.encode("latin-1", "replace").decode("unicode_escape")


def _mounted(device: int) -> tuple[set[str], set[str]]:
    """Return the types and options of the mounts of a device."""
    number = f"{os.major(device)}:{os.minor(device)}"
    kinds: set[str] = set()
    options: set[str] = set()
    for line in MOUNTS.read_text(errors="replace").splitlines():
        fields, _, rest = line.partition(" - ")
        words, more = fields.split(), rest.split()
        if len(words) > 5 and len(more) > 2 and words[2] == number:
            kinds.add(more[0])
            options.update(words[5].split(","), more[2].split(","))
    return kinds, options


def _ext4_options(device: int) -> set[str]:
    """Return the options of an ext4, with those that it has from its superblock."""
    name = (SYS_DEV_BLOCK / f"{os.major(device)}:{os.minor(device)}").resolve().name
    try:
        return set((PROC_EXT4 / name / "options").read_text().split())
    except OSError:
        return set()


def _magic(fd: int) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    buffer = ctypes.create_string_buffer(STATFS)
    if libc.fstatfs(fd, buffer):
        code = ctypes.get_errno() or errno.EIO
        raise OSError(code, os.strerror(code))
    magic: int = struct.unpack_from("<q", buffer)[0]
    return magic & 0xFFFFFFFF


def _xflags(fd: int) -> int:
    buffer = bytearray(XATTR)
    fcntl.ioctl(fd, FS_IOC_FSGETXATTR, buffer)
    flags: int = struct.unpack_from("<I", buffer)[0]
    return flags
