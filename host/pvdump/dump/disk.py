"""A dump target as the host sees it: a block device or a file, and the superblock on it.

Used by prepare, collect and info. The rule: what a guest may have written past our back is read
afresh (blkback bypasses the page cache of the host), and who writes opens exclusively, so that a
disk that is mounted or in a volume group is never written. A disk that a running guest has may be
prepared: that is how it gets ready for the next dump.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pvfw import superblock as target
from pvfw.errors import DumpError

MIB = 1 << 20
SYS_BLOCK = Path("/sys/block")
SWAPS = Path("/proc/swaps")


class DiskError(DumpError):
    """A disk or file cannot be used; the message names it and says why."""


class Disk:
    """An open target. size: bytes; device: whether it is a block device and not a file."""

    def __init__(self, path: Path, fd: int) -> None:
        self.path = path
        self.fd = fd
        mode = os.fstat(fd).st_mode
        if not stat.S_ISBLK(mode) and not stat.S_ISREG(mode):
            raise DiskError(f"{path} is neither a disk nor a file")
        self.device = stat.S_ISBLK(mode)
        self.size = os.lseek(fd, 0, os.SEEK_END)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)

    def read(self, offset: int, size: int) -> bytes:
        """Bytes from offset on; fewer only at the end of the disk."""
        parts = []
        while size > 0:
            try:
                part = os.pread(self.fd, size, offset)
            except OSError as error:
                raise DiskError(
                    f"{self.path}: reading at byte {offset}: {error.strerror}"
                ) from error
            if not part:
                break
            parts.append(part)
            offset += len(part)
            size -= len(part)
        return b"".join(parts)

    def write(self, offset: int, data: bytes) -> None:
        """Write all of data; it is on the disk when this returns."""
        view = memoryview(data)
        try:
            while view:
                done = os.pwrite(self.fd, view, offset)
                offset += done
                view = view[done:]
            os.fsync(self.fd)
        except OSError as error:
            raise DiskError(f"{self.path}: writing at byte {offset}: {error.strerror}") from error

    def superblock(self) -> target.Superblock:
        """The superblock. Raises TargetRefused when there is none or it is damaged."""
        return target.decode(self.read(0, target.SUPERBLOCK_SIZE))


@contextmanager
def reading(path: Path) -> Iterator[Disk]:
    """Open a target to read it; a guest may have it meanwhile."""
    with _opened(path, os.O_RDONLY) as disk:
        yield disk


@contextmanager
def writing(path: Path) -> Iterator[Disk]:
    """Open a target to write it. Raises DiskError when somebody else has it."""
    # On a block device O_EXCL without O_CREAT fails when it is in use: open(2). Files have no such.
    is_device = stat.S_ISBLK(_stat(path).st_mode)
    with _opened(path, os.O_RDWR | (os.O_EXCL if is_device else 0)) as disk:
        if not disk.device and (holder := _file_holder(path)):
            raise DiskError(f"{path} is in use: {holder}")
        yield disk


@contextmanager
def _opened(path: Path, flags: int) -> Iterator[Disk]:
    try:
        # Without O_NONBLOCK a FIFO would be waited for before it can be refused.
        fd = os.open(path, flags | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        if error.errno == errno.EBUSY:
            raise DiskError(
                f"{path} is in use: mounted, part of a volume or RAID, or swap"
            ) from error
        raise DiskError(f"{path}: {error.strerror}") from error
    try:
        yield Disk(path, fd)
    finally:
        os.close(fd)


def exists(path: Path) -> bool:
    """Whether there is something at path. Raises DiskError where that cannot be seen."""
    try:
        return path.exists()
    except OSError as error:
        raise DiskError(f"{path}: {error.strerror}") from error


def _stat(path: Path) -> os.stat_result:
    try:
        return path.stat()
    except OSError as error:
        raise DiskError(f"{path}: {error.strerror}") from error


def _file_holder(path: Path) -> str:
    """What the kernel uses a file for; empty when nothing."""
    full = str(path.resolve())
    for backing in SYS_BLOCK.glob("loop*/loop/backing_file"):
        if os.fsdecode(backing.read_bytes().rstrip(b"\n")) == full:
            return f"it backs /dev/{backing.parts[-3]}"
    if SWAPS.exists():
        for line in SWAPS.read_bytes().splitlines():
            if os.fsdecode(line.split()[0]) == full:
                return "the kernel swaps to it"
    return ""
