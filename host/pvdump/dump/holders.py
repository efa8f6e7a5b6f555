"""The users that a disk or file has already: the kernel, or a guest.

Used by disk.py and by prepare. The rule: a file is recognised by its device and inode, a disk by
its device number, never by its name, because a hard link, a bind mount or another node in /dev
gives it another one.
Source: Linux include/uapi/linux/loop.h; Xen docs/misc/xenstore-paths.pandoc and
tools/libs/light/libxl_disk.c (params, physical-device and mode); fcntl(2), "Open file description
locks"; QEMU block/file-posix.c (RAW_LOCK_PERM_BASE, BLK_PERM_WRITE).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import stat
import struct
from collections.abc import Iterator
from pathlib import Path

SYS_BLOCK = Path("/sys/block")
SWAPS = Path("/proc/swaps")
SYS_DEV_BLOCK = Path("/sys/dev/block")
DEV = Path("/dev")
LOOP_GET_STATUS64 = 0x4C05
LOOP_INFO64 = 232  # bytes; it begins with the device and the inode, u64 each
F_OFD_GETLK, F_OFD_SETLK = 36, 37  # not every Python's fcntl names them
FLOCK = "hhqqi4x"  # l_type, l_whence, l_start, l_len, l_pid
BACKENDS = "backend"  # below the directory of the domain that asks
KEYS = ("params", "physical-device")
QEMU_WRITES = 101  # the byte that QEMU locks of an image that it may write to


def kernel(fd: int) -> str:
    """Tell what the kernel uses an open file for: a loop device or swap.

    Returns:
        a clause for a message, or "" when it is not used.
    """
    mine = _identity(os.fstat(fd))
    for backing in SYS_BLOCK.glob("loop*/loop/backing_file"):
        name = backing.parts[-3]
        try:
            named = _file_at(backing.read_bytes().rstrip(b"\n"))
        except OSError:  # the loop device was detached meanwhile
            continue
        if mine in (_behind_loop(DEV / name), named):
            return f"it backs /dev/{name}; if that is a guest's disk, name /dev/{name}"
    with contextlib.suppress(OSError):
        for line in SWAPS.read_bytes().splitlines()[1:]:
            # Blanks and the like are written as \040.
            swap = line.split()[0].decode("unicode_escape").encode("latin-1")
            if mine == _file_at(swap):
                return "the kernel swaps to it"
    return ""


def guest(fd: int, writers: bool = False, store: Path | None = None) -> str:
    """Tell which guest has an open disk or file, by xenstore and by the lock that QEMU holds.

    Args:
        writers: whether to ask only for those that may write to it.
        store: xenstored's socket or device; None for the one that its tools use.

    Returns:
        a clause for a message, or "" when no guest is known to have it.
    """
    if who := _attached_to(fd, writers, store):
        return who
    locked = _locked(fd, QEMU_WRITES, 1) if writers else _locked(fd)
    return "another process has locked it, as QEMU does with a guest's disk" if locked else ""


def backend(fd: int) -> bool:
    """Tell whether a guest's backend has a disk, and so may have opened it exclusively."""
    return _locked(fd) and _attached_to(fd) != ""


def _attached_to(fd: int, writers: bool = False, store: Path | None = None) -> str:
    """Tell which guest has an open disk or file by xenstore. Returns a clause, or ""."""
    status = os.fstat(fd)
    behind = _loop_file(fd) if stat.S_ISBLK(status.st_mode) else None
    for domid, device, reads, values in _attached(store):
        if not (reads and writers) and any(_is_behind(status, value, behind) for value in values):
            return f"domain {domid} has it as {device}"
    return ""


def _locked(fd: int, start: int = 0, length: int = 0) -> bool:
    """Tell whether another process has locked any of these bytes; the kernel does not say which."""
    query = struct.pack(FLOCK, fcntl.F_WRLCK, os.SEEK_SET, start, length, 0)
    with contextlib.suppress(OSError):
        return struct.unpack(FLOCK, fcntl.fcntl(fd, F_OFD_GETLK, query))[0] != int(fcntl.F_UNLCK)
    return False


def _attached(store: Path | None = None) -> Iterator[tuple[str, str, bool, list[bytes]]]:
    """Yield what this domain's backends have: domid, device, if only to read, its disk's names."""
    from xenpv.errors import XenError
    from xenpv.text import printable

    from ..xenstore.store import Store
    from ..xenstore.stream import default_path

    path = store or default_path()
    if not os.path.exists(path):  # noqa: PTH110 - Path.exists() raises where it may not look
        return  # no Xen below, or none for this user
    try:
        with Store(path) as nodes:
            for kind in nodes.directory(BACKENDS, []):
                for domid in nodes.directory(f"{BACKENDS}/{kind}", []):
                    for number in nodes.directory(f"{BACKENDS}/{kind}/{domid}", []):
                        back = f"{BACKENDS}/{kind}/{domid}/{number}"
                        device = printable(nodes.find(f"{back}/dev") or number.encode())
                        found = [nodes.find(f"{back}/{key}") for key in KEYS]
                        reads = nodes.find(f"{back}/mode") == b"r"
                        yield domid, device, reads, [value for value in found if value]
    except XenError:
        return


def _is_behind(status: os.stat_result, value: bytes, behind: tuple[int, int] | None = None) -> bool:
    """Tell whether a value names a disk or file: a path, type:path, or major:minor in hex.

    behind: the identity of the disk's file, where it is a loop device.
    """
    if (match := re.fullmatch(rb"([0-9a-f]{1,8}):([0-9a-f]{1,8})", value)) is not None:
        major, minor = int(match[1], 16), int(match[2], 16)
        # What has more bits is no device: include/linux/kdev_t.h, MINORBITS.
        return not major >> 12 and not minor >> 20 and _overlap(status, os.makedev(major, minor))
    for name in (value, value.partition(b":")[2]):
        # Relative names are those of other kinds of backend.
        if name.startswith(b"/") and b"\0" not in name:
            with contextlib.suppress(OSError):
                other = os.stat(name)  # noqa: PTH116 - bytes
                if stat.S_ISBLK(other.st_mode):
                    return _overlap(status, other.st_rdev)
                return _identity(other) in (_identity(status), behind)
    return False


def _overlap(status: os.stat_result, device: int) -> bool:
    """Tell whether a disk is `device`, a partition of it, or the disk it is a partition of."""
    if not stat.S_ISBLK(status.st_mode):
        return False
    return status.st_rdev in (device, _whole(device)) or _whole(status.st_rdev) == device


def _whole(device: int) -> int:
    """Return the disk that a partition is on; the device itself if it is no partition."""
    folder = SYS_DEV_BLOCK / f"{os.major(device)}:{os.minor(device)}"
    try:
        if not (folder / "partition").exists():
            return device
        major, minor = (folder.resolve().parent / "dev").read_text().split(":")
    except OSError:
        return device
    return os.makedev(int(major), int(minor))


def _behind_loop(device: Path) -> tuple[int, int] | None:
    """Return the identity of a loop device's file, as the kernel knows it, whatever its name."""
    try:
        fd = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return _loop_file(fd)
    finally:
        os.close(fd)


def _loop_file(fd: int) -> tuple[int, int] | None:
    """Return the identity of the file behind an open loop device, None for another disk."""
    try:
        info = fcntl.ioctl(fd, LOOP_GET_STATUS64, bytes(LOOP_INFO64))
    except OSError:
        return None
    number, inode = struct.unpack_from("<QQ", info)
    # Source: include/linux/kdev_t.h, new_encode_dev().
    return os.makedev(number >> 8 & 0xFFF, number & 0xFF | number >> 12 & 0xFFF00), inode


def _file_at(name: bytes) -> tuple[int, int] | None:
    try:
        return _identity(os.stat(name))  # noqa: PTH116 - bytes
    except OSError:
        return None


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino
