"""What a disk is made of: a file, a block device, or what an NBD server has.

Opened by a device when its toolstack's nodes say which (params), and held until the device goes,
across all connections of its front end. The rule: read and write go straight between the sink and
the memory they are given; what a sink cannot do at the moment is Stalled, what it cannot do at all
an OSError. Offsets and lengths are bytes.
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

from .ports import Stalled

IOV_MAX = 1024
BLKSSZGET, BLKPBSZGET = 0x1268, 0x127B
BLKGETSIZE64 = 0x80081272
BLKDISCARD = 0x1277
FS_IOC_UNRESVSP64 = 0x4030582B  # punches a hole
SPACE_RESV = "<hh4xqqiI16x"
BUSY = (errno.EAGAIN, errno.ENOMEM, errno.ENOBUFS)


class Sink(Protocol):
    """size: bytes; sector_size, physical: bytes; granularity: of discard, 0 when it cannot.

    direct: a file descriptor past the page cache, which takes many I/Os at a time; or None.
    """

    direct: int | None
    size: int
    sector_size: int
    physical: int
    granularity: int

    def read(self, offset: int, buffers: list[memoryview]) -> None: ...

    def write(self, offset: int, buffers: list[memoryview]) -> None: ...

    def flush(self) -> None: ...

    def discard(self, offset: int, length: int) -> None: ...

    def close(self) -> None: ...


def open_sink(params: str, readonly: bool) -> Sink:
    """The sink that a `params` node names: a path, or an nbd: address. Raises OSError, Stalled."""
    if params.startswith("nbd"):
        from .nbd import Nbd

        return Nbd(params)
    path = Path(params)
    is_block = stat.S_ISBLK(path.stat().st_mode)
    return Device(path, readonly) if is_block else File(path, readonly)


class File:
    """A regular file, which may be sparse; what is discarded becomes a hole."""

    direct: int | None = None
    flags = os.O_CLOEXEC

    def __init__(self, path: Path, readonly: bool) -> None:
        self._fd = os.open(path, (os.O_RDONLY if readonly else os.O_RDWR) | self.flags)
        self.sector_size = self.physical = SECTOR
        self.granularity = 4096
        self.size = os.fstat(self._fd).st_size

    def read(self, offset: int, buffers: list[memoryview]) -> None:
        self._vectored(os.preadv, offset, buffers)

    def write(self, offset: int, buffers: list[memoryview]) -> None:
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
        os.fdatasync(self._fd)

    def discard(self, offset: int, length: int) -> None:
        fcntl.ioctl(
            self._fd, FS_IOC_UNRESVSP64, struct.pack(SPACE_RESV, 0, 0, offset, length, 0, 0)
        )

    def close(self) -> None:
        os.close(self._fd)


class Device(File):
    """A block device of this kernel; its data goes past the page cache."""

    flags = os.O_CLOEXEC | os.O_DIRECT

    def __init__(self, path: Path, readonly: bool) -> None:
        super().__init__(path, readonly)
        self.direct = self._fd
        self.sector_size = self._ask("<I", BLKSSZGET)
        self.physical = self._ask("<I", BLKPBSZGET)
        self.size = self._ask("<Q", BLKGETSIZE64)
        self.granularity = _discard_granularity(os.fstat(self._fd).st_rdev)

    def _ask(self, form: str, request: int) -> int:
        answer = fcntl.ioctl(self._fd, request, bytes(struct.calcsize(form)))
        return int(struct.unpack(form, answer)[0])

    def discard(self, offset: int, length: int) -> None:
        fcntl.ioctl(self._fd, BLKDISCARD, struct.pack("<QQ", offset, length))


def _discard_granularity(number: int) -> int:
    device = Path(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}")
    for queue in (device / "queue", device / "../queue"):  # a partition has its disk's
        with contextlib.suppress(OSError, ValueError):
            if int((queue / "discard_max_bytes").read_text()) == 0:
                return 0
            return int((queue / "discard_granularity").read_text())
    return 0


def behind(buffers: list[memoryview], done: int) -> list[memoryview]:
    """What is left of buffers behind their first `done` bytes."""
    for i, buffer in enumerate(buffers):
        if done < len(buffer):
            return [buffer[done:], *buffers[i + 1 :]]
        done -= len(buffer)
    return []
