"""The place of a disk's data: a file, a block device, or the export of an NBD server.

A device opens its sink when its toolstack's nodes name one, and holds it for all connections of its
front end. The rules: read and write go straight between the sink and the memory they are given; a
sink raises Stalled for what it cannot do at the moment and OSError for what it cannot do at all; a
file or block device is claimed (claim.py), so that it has no second user by mistake. Offsets and
lengths are bytes.
Source: Linux include/uapi/linux/fs.h, falloc.h (ioctl numbers).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from xenpv.block.blkif import SECTOR

from ..dump import holders
from .claim import InUse, claim, open_block
from .ports import Stalled

IOV_MAX = 1024
BLKSSZGET, BLKPBSZGET = 0x1268, 0x127B
BLKGETSIZE64 = 0x80081272
BLKDISCARD = 0x1277
FS_IOC_UNRESVSP64 = 0x4030582B  # punches a hole
SPACE_RESV = "<hh4xqqiI16x"
BUSY = (errno.EAGAIN, errno.ENOMEM, errno.ENOBUFS)
SHORT = (*BUSY, errno.EMFILE, errno.ENFILE)
NBD_SCHEMES = ("nbd:", "nbd+unix:")


class Sink(Protocol):
    """A disk's data. Each method raises Stalled for what it cannot do now, OSError for never."""

    @property
    def direct(self) -> int | None:
        """A file descriptor past the page cache that takes many I/Os at a time, or None."""

    @property
    def size(self) -> int:
        """Bytes of data."""

    @property
    def sector_size(self) -> int:
        """Bytes of the smallest read or write."""

    @property
    def physical(self) -> int:
        """Bytes that the disk writes at once; smaller writes are slower."""

    @property
    def granularity(self) -> int:
        """Bytes that a discard is a multiple of, 0 if the sink cannot discard."""

    def read(self, offset: int, buffers: list[memoryview]) -> None:
        """Fill the buffers, one after the other, from a byte offset on."""

    def write(self, offset: int, buffers: list[memoryview]) -> None:
        """Write the buffers, one after the other, from a byte offset on."""

    def flush(self) -> None:
        """Put all finished writes on stable storage."""

    def discard(self, offset: int, length: int) -> None:
        """Give back the storage of a range; its content is undefined until it is written."""

    def measure(self) -> None:
        """Look at the size again. Raises Stalled, OSError."""

    def close(self) -> None:
        """Close the sink and give up its claim."""


def open_sink(params: str, readonly: bool, shared: bool) -> Sink:
    """Open the sink that a `params` node names.

    Args:
        params: a path, or the address of an NBD export.
        readonly: whether the guest may only read.
        shared: whether it may be in use elsewhere, too.

    Raises: OSError; Stalled, which is InUse where it is in use elsewhere. The caller names the
    sink: `strerror` and the text of Stalled do not.
    """
    if params.startswith(NBD_SCHEMES):
        from .nbd import Nbd

        return Nbd(params, readonly)
    if "\0" in params:
        raise OSError(errno.EINVAL, "a path with a NUL")
    path = Path(params)
    mode = path.stat().st_mode
    if stat.S_ISBLK(mode):
        return BlockDevice(path, readonly, shared)
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "no file or block device")
    return File(path, readonly, shared)


def check(params: str, readonly: bool, shared: bool, store: Path | None) -> None:
    """Check that a sink can be opened; the server of an NBD export may start later.

    Args:
        params, readonly, shared: as for open_sink().
        store: where the guests' disks are looked up, see holders.guest().

    Raises: as open_sink().
    """
    if params.startswith(NBD_SCHEMES):
        from .nbd import parse

        parse(params)
    else:
        sink = open_sink(params, readonly, shared)
        try:
            if isinstance(sink, File) and not shared:
                sink.check_guests(readonly, store)
        finally:
            sink.close()


class File:
    """A regular file, which may be sparse; what is discarded becomes a hole."""

    direct: int | None = None
    flags = os.O_CLOEXEC

    def __init__(self, path: Path, readonly: bool, shared: bool) -> None:
        try:
            self._fd = self._open(path, readonly, shared)
        except OSError as error:
            if error.errno in SHORT:
                raise Stalled(error.strerror) from None
            raise
        try:
            claim(self._fd, readonly, shared)
            self._describe()
        except BaseException:
            os.close(self._fd)
            raise

    def check_guests(self, readonly: bool, store: Path | None) -> None:
        """Refuse a file that a guest has; readers share it with readers. Raises InUse."""
        if holder := holders.guest(self._fd, readonly, store):
            raise InUse(holder)

    def _open(self, path: Path, readonly: bool, shared: bool) -> int:
        return os.open(path, (os.O_RDONLY if readonly else os.O_RDWR) | self.flags)

    def _describe(self) -> None:
        self.sector_size = self.physical = SECTOR
        self.granularity = 4096
        self.measure()

    def measure(self) -> None:
        """Look at the size again: the file may have grown."""
        self.size = os.fstat(self._fd).st_size

    def read(self, offset: int, buffers: list[memoryview]) -> None:
        """Fill the buffers from a byte offset on."""
        self._vectored(os.preadv, offset, buffers)

    def write(self, offset: int, buffers: list[memoryview]) -> None:
        """Write the buffers from a byte offset on."""
        self._vectored(os.pwritev, offset, buffers)

    def _vectored(
        self,
        call: Callable[[int, list[memoryview], int], int],
        offset: int,
        buffers: list[memoryview],
    ) -> None:
        for at in range(0, len(buffers), IOV_MAX):
            left = buffers[at : at + IOV_MAX]
            while left:
                try:
                    done = call(self._fd, left, offset)
                except OSError as error:
                    if error.errno in BUSY:
                        raise Stalled(os.strerror(error.errno)) from None
                    raise
                if done == 0:
                    raise OSError(errno.EIO, "the disk is shorter than it was")
                offset += done
                left = behind(left, done) if done < sum(map(len, left)) else []

    def flush(self) -> None:
        """Put all finished writes on stable storage."""
        os.fdatasync(self._fd)

    def discard(self, offset: int, length: int) -> None:
        """Punch a hole."""
        fcntl.ioctl(
            self._fd, FS_IOC_UNRESVSP64, struct.pack(SPACE_RESV, 0, 0, offset, length, 0, 0)
        )

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)


class BlockDevice(File):
    """A block device of this kernel; its data goes past the page cache."""

    flags = os.O_CLOEXEC | os.O_DIRECT

    def _describe(self) -> None:
        self.direct = self._fd
        self.sector_size = self._ask("<I", BLKSSZGET)
        self.physical = self._ask("<I", BLKPBSZGET)
        self.granularity = _discard_granularity(os.fstat(self._fd).st_rdev)
        self.measure()

    def _open(self, path: Path, readonly: bool, shared: bool) -> int:
        mode = os.O_RDONLY if readonly else os.O_RDWR
        return open_block(path, mode | self.flags, shared)

    def measure(self) -> None:
        """Look at the size again: a volume may have grown."""
        self.size = self._ask("<Q", BLKGETSIZE64)

    def _ask(self, form: str, request: int) -> int:
        answer = fcntl.ioctl(self._fd, request, bytes(struct.calcsize(form)))
        return int(struct.unpack(form, answer)[0])

    def discard(self, offset: int, length: int) -> None:
        fcntl.ioctl(self._fd, BLKDISCARD, struct.pack("<QQ", offset, length))


def _discard_granularity(number: int) -> int:
    device = Path(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}")
    for queue in (device / "queue", device / "../queue"):  # the second one for a partition
        with contextlib.suppress(OSError, ValueError):
            if int((queue / "discard_max_bytes").read_text()) == 0:
                return 0
            return int((queue / "discard_granularity").read_text())
    return 0


def behind(buffers: list[memoryview], done: int) -> list[memoryview]:
    """Return what is left of buffers behind their first `done` bytes."""
    for i, buffer in enumerate(buffers):
        if done < len(buffer):
            return [buffer[done:], *buffers[i + 1 :]]
        done -= len(buffer)
    return []
