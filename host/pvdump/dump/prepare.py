"""Makes a disk or file a dump target by giving it a superblock.

Used by `pvdump prepare`. The rules: only what is empty, or a target without a dump, is written
unasked; a target whose dump was collected is taken with --again, anything else with --force, after
the person was told what was found. With --again a counter of boots (pvfw.tries) stays. What the
kernel uses is never written, and what a guest uses only if it is a target or empty. Only the first
MiB, which the superblock owns, and the last page, which has its copy, are ever written.
"""

from __future__ import annotations

import dataclasses
import os
import uuid
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pvfw import superblock, tries
from pvfw.errors import TargetRefused

from ..streams import pasted
from . import disk as disks
from . import holders, newfile, swapspace
from .contents import Contents, look
from .disk import MIB, PAGE, BadPlace, DiskError, TargetDisk
from .meter import SILENT, Progress

SMALLEST = superblock.DATA_OFFSET + MIB


@dataclass(frozen=True)
class Prepared:
    """A target that is ready.

    Attributes:
        uuid: of the target.
        size: bytes of the target.
        room: bytes of it for the vmcore.
        lost: what was there, or "".
    """

    uuid: uuid.UUID
    size: int
    room: int
    lost: str


def prepared(block: superblock.Superblock) -> Prepared:
    """Return what a superblock says of a new target."""
    return Prepared(uuid.UUID(bytes=block.uuid), block.size, block.room(), "")


def prepare(
    path: Path,
    size: int | None = None,
    force: bool = False,
    progress: Progress = SILENT,
) -> Prepared:
    """Write a superblock in state ready.

    Args:
        path: of a block device or file.
        size: bytes; makes the file, with all its blocks, when it is not there.
        force: also over something else.
        progress: is told the size, and the bytes that each step has looked at.

    Raises:
        DiskError: it cannot be used.
        TargetRefused: it holds something.
    """
    if not disks.exists(path):
        newfile.refuse_dev(path)
        if size is None:
            raise DiskError(f"{path} does not exist; with --size it is made as a file")
        _make(path, size)
    elif size is not None and size != (there := _size(path)):
        raise DiskError(f"{path} exists, with {there} bytes; --size is for a file to be made")
    with disks.writing(path) as disk:
        _refuse_small(disk)
        found = look(disk, not force, progress)
        _refuse_foreign_use(disk, found)
        if found.name and not force:
            raise TargetRefused(f"{path} holds {found.name}; nothing was changed. {_way(found)}")
        if not force and swapspace.is_swap(disk.read(0, PAGE)):
            raise TargetRefused(f"{path} is swap as well: `pvdump prepare --swap {pasted(path)}`")
        return _sign(disk, uuid.uuid4(), found.name)


def prepare_again(path: Path) -> Prepared:
    """Make a target ready for its next dump. It keeps its UUID.

    Raises:
        DiskError: it cannot be used.
        TargetRefused: it is no target, or its dump was not collected.
    """
    with disks.writing(path) as disk:
        _refuse_small(disk)
        block = disk.superblock()
        found = look(disk, False, SILENT)
        if found.name and not block.collected:
            raise TargetRefused(
                f"{path} holds {found.name}, which was not collected; nothing was changed. "
                f"{_way(found)}"
            )
        if swapspace.is_swap(disk.read(0, PAGE)):
            ready = superblock.Superblock(block.uuid, block.size)
            swapspace.sign(disk, ready)
            return dataclasses.replace(prepared(ready), lost=found.name)
        return _sign(disk, uuid.UUID(bytes=block.uuid), found.name, _has_counter(disk))


def _way(found: Contents) -> str:
    """Say what to do with a disk that holds something."""
    lost = "If it is not needed any more, say --force"
    return f"{found.advice}. {lost}" if found.advice else lost


def _refuse_small(disk: TargetDisk) -> None:
    if disk.size < SMALLEST:
        raise DiskError(f"{disk.path} has {disk.size} bytes; a target needs {SMALLEST} at least")


def _refuse_foreign_use(disk: TargetDisk, found: Contents) -> None:
    """Refuse what a guest uses for anything but dumps."""
    if found.name and found.block is None and (holder := holders.guest(disk.fd)):
        raise DiskError(
            f"{disk.path} is in use: {holder}, and it holds {found.name}; detach it from the guest"
        )


def _has_counter(disk: TargetDisk) -> bool:
    with suppress(BadPlace):
        return tries.decode(disk.read(tries.AT, tries.SIZE)) is not None
    return False


def _sign(disk: TargetDisk, name: uuid.UUID, lost: str, counts: bool = False) -> Prepared:
    """Write superblock and copy, and zeros between; `counts`: a counter of boots stays."""
    usable = disk.size // PAGE * PAGE
    block = superblock.Superblock(name.bytes, usable)
    # The superblock goes last: until then the first MiB is nobody's, not half of each. It goes with
    # the rest of its page, because for less the kernel reads the page, which may be unreadable.
    begin = tries.AT + tries.PAGE if counts else PAGE
    disk.write(begin, bytes(superblock.DATA_OFFSET - begin))
    raw = block.encode().ljust(PAGE, b"\0")
    disk.write(usable - superblock.COPY_SIZE, raw)
    disk.write(0, raw)
    return Prepared(name, usable, block.room(), lost)


def _size(path: Path) -> int:
    with disks.reading(path) as disk:
        return disk.size


def _make(path: Path, size: int) -> None:
    """Make a file with its blocks allocated: a crash is no time to run out of space."""
    if size < SMALLEST:
        raise DiskError(f"--size {size}: a target needs {SMALLEST} bytes at least")
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise DiskError(f"{path}: {error.strerror}") from error
    try:
        os.posix_fallocate(fd, 0, size)
    except BaseException as error:
        path.unlink()
        if isinstance(error, OSError):
            raise DiskError(f"{path}: {size} bytes: {error.strerror}") from error
        raise
    finally:
        os.close(fd)
