"""A dump target as the host sees it: a block device or a file, and the superblock on it.

Used by prepare, collect and info. The rules: every look reads the disk afresh, because a guest
writes past the host's page cache (blkback does); a disk or file that the kernel uses itself
(mounted, part of a volume, swap) is never written, whatever name it is given by.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from pvfw import chunks, elf, superblock
from pvfw.errors import DumpError, NoSuperblock, OtherVersion, TargetRefused
from pvfw.superblock import Superblock

from ..streams import pasted
from . import holders
from .immutable import mutable

MIB = superblock.MIB
PAGE = 4096  # the kernel reads whole pages, so a smaller part of an unreadable one is not to be had
# errno of a read at a bad place of a medium that answers otherwise.
BAD_PLACE = (
    errno.EIO,
    errno.ENODATA,
    errno.EILSEQ,
    errno.EREMOTEIO,
    errno.EBADMSG,
    errno.EUCLEAN,
    errno.ETIMEDOUT,
    errno.EBADE,
    errno.ENOLINK,
)

OTHER_MADE_IT = "another pvdump, probably a newer one, made this target: use that one for it"


class DiskError(DumpError):
    """A disk or file cannot be used; the message names it and says why."""


class Busy(DiskError):
    """A disk has been opened exclusively by somebody else."""


class BadPlace(DiskError):
    """A place of a disk cannot be read; others may."""


class TargetDisk:
    """An open block device or file that is a dump target or is to become one.

    Args:
        path: its name, for messages.
        fd: open for reading at least. The caller closes it.

    Raises:
        DiskError: it is neither a block device nor a file.
    """

    def __init__(self, path: Path, fd: int) -> None:
        self.path = path
        self.fd = fd
        mode = os.fstat(fd).st_mode
        if not stat.S_ISBLK(mode) and not stat.S_ISREG(mode):
            raise DiskError(f"{path} is neither a disk nor a file")
        self.device = stat.S_ISBLK(mode)
        try:
            self.size = os.lseek(fd, 0, os.SEEK_END)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        except OSError as error:
            raise DiskError(f"{path} cannot be used as a disk: {error.strerror}") from error

    def read(self, offset: int, size: int) -> bytes:
        """Read `size` bytes at `offset`; fewer come only at the end of the disk.

        Raises:
            BadPlace: a sector is unreadable.
            DiskError: the disk cannot be read.
        """
        parts = []
        # A superblock may say any number, and no off_t is so large.
        while size > 0 and offset < self.size:
            try:
                part = os.pread(self.fd, size, offset)
            except OSError as error:
                kind = BadPlace if error.errno in BAD_PLACE else DiskError
                raise kind(f"{self.path}: reading at byte {offset}: {error.strerror}") from error
            if not part:
                break
            parts.append(part)
            offset += len(part)
            size -= len(part)
        return b"".join(parts)

    def read_around(self, offset: int, size: int) -> tuple[bytes, list[tuple[int, int]]]:
        """Read as read() does, with zeros for the pages that are unreadable.

        Returns:
            the data, and of each place of the disk that is such zeros its offset and size, bytes.

        Raises:
            DiskError: the disk cannot be read.
        """
        try:
            return self.read(offset, size), []
        except BadPlace:
            # Pages of the disk, not of the part asked for, are what can be read alone.
            middle = (offset + size // 2) // PAGE * PAGE
            if middle <= offset:
                middle = (offset // PAGE + 1) * PAGE
            if middle >= offset + size:
                return bytes(size), [(offset, size)]
        first, lost = self.read_around(offset, middle - offset)
        second, more = self.read_around(middle, offset + size - middle)
        return first + second, lost + more

    def write(self, offset: int, data: bytes) -> None:
        """Write all of `data` at `offset`; it is on stable storage when this returns.

        Raises:
            DiskError: the disk cannot be written.
        """
        view = memoryview(data)
        try:
            while view:
                done = os.pwrite(self.fd, view, offset)
                offset += done
                view = view[done:]
            os.fsync(self.fd)
        except OSError as error:
            raise DiskError(f"{self.path}: writing at byte {offset}: {error.strerror}") from error

    def superblock(self) -> superblock.Superblock:
        """Read the superblock.

        Raises:
            TargetRefused: there is none or it is damaged. Where a vmcore stands behind it, the
                message says how to get that instead of asking for a new superblock.
            OtherVersion: another pvdump made it.
            DiskError: the disk cannot be read.
        """
        try:
            raw = self.read(0, superblock.SUPERBLOCK_SIZE)
        except BadPlace as error:
            raise BadPlace(
                f"{error}: the superblock; "
                f"`pvdump collect --salvage {pasted(self.path)} OUT` gets a dump behind it, "
                f"`pvdump prepare --force {pasted(self.path)}` writes it anew"
            ) from error
        try:
            return superblock.decode(raw)
        except OtherVersion as error:
            raise OtherVersion(f"{self.path}: {error}; {OTHER_MADE_IT}") from error
        except TargetRefused as error:
            if not self.has_dump():
                raise TargetRefused(f"{self.path}: {error}") from error
            is_none = isinstance(error, NoSuperblock)
            what = "no pvdump superblock" if is_none else str(error).partition(": `")[0]
            raise TargetRefused(
                f"{self.path}: {what}, but a dump stands behind its place: "
                f"`pvdump collect --salvage {pasted(self.path)} OUT` gets it"
            ) from error

    def superblock_copy(self) -> Superblock | None:
        """Read the copy of the superblock at the target's end; None where there is none."""
        end = self.size // PAGE * PAGE
        if end < superblock.COPY_SIZE:
            return None
        try:
            raw = self.read(end - superblock.COPY_SIZE, superblock.SUPERBLOCK_SIZE)
            block = superblock.decode(raw)
        except (BadPlace, TargetRefused):
            return None
        return block if block.copy_at() == end - superblock.COPY_SIZE else None

    def write_superblock(self, block: Superblock) -> None:
        """Write a superblock, and its copy where the target has its place. Raises: as write()."""
        copy = block.copy_at()
        if copy is not None and copy + superblock.COPY_SIZE <= self.size:
            self.write(copy, block.encode())
        self.write(0, block.encode())

    def doubt(self) -> str:
        """Tell why what this was made of may have been changed meanwhile; "" for a disk."""
        return ""

    def has_dump(self) -> bool:
        """Tell whether a vmcore or stream begins, readable, where `prepare` has a dump begin."""
        try:
            return self.read(superblock.DATA_OFFSET, 4) in (elf.MAGIC, chunks.MAGIC)
        except BadPlace:
            return False


@contextmanager
def reading(path: Path) -> Iterator[TargetDisk]:
    """Open a target to read it; a guest may have it meanwhile.

    Raises:
        DiskError: it cannot be opened, or is neither a disk nor a file.
    """
    with _opened(path, _open(path, os.O_RDONLY)) as disk:
        yield disk


@contextmanager
def writing(path: Path) -> Iterator[TargetDisk]:
    """Open a target to write it.

    Raises:
        DiskError: as reading(), and when the kernel uses the disk or file.
    """
    with ExitStack() as stack:
        if stat.S_ISBLK(_stat(path).st_mode):
            fd = _open_exclusively(path)
        else:
            # A target in a file system is immutable.
            stack.enter_context(mutable(path))
            fd = _open(path, os.O_RDWR)
        disk = stack.enter_context(_opened(path, fd))
        if not disk.device and (holder := holders.kernel(disk.fd)):
            raise DiskError(f"{path} is in use: {holder}")
        yield disk


def _open(path: Path, flags: int) -> int:
    try:
        # Without O_NONBLOCK the opening of a FIFO would wait before it can be refused.
        return os.open(path, flags | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        if error.errno == errno.EBUSY:
            raise Busy(f"{path} is in use: mounted, part of a volume or RAID, or swap") from error
        raise DiskError(f"{path}: {error.strerror}") from error


def _open_exclusively(path: Path) -> int:
    """Open a block device to write it, unless somebody else but a guest's backend has it so."""
    try:
        # On a block device O_EXCL without O_CREAT fails when it is in use: open(2).
        return _open(path, os.O_RDWR | os.O_EXCL)
    except Busy:
        fd = _open(path, os.O_RDWR)
        if holders.backend(fd):
            return fd
        os.close(fd)
        raise


@contextmanager
def _opened(path: Path, fd: int) -> Iterator[TargetDisk]:
    try:
        yield TargetDisk(path, fd)
    finally:
        os.close(fd)


def exists(path: Path) -> bool:
    """Tell whether there is something at `path`, a dangling link included.

    Raises:
        DiskError: that cannot be seen.
    """
    try:
        path.lstat()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise DiskError(f"{path}: {error.strerror}") from error
    return True


def _stat(path: Path) -> os.stat_result:
    try:
        return path.stat()
    except OSError as error:
        raise DiskError(f"{path}: {error.strerror}") from error
