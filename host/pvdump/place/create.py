"""Targets in the file systems and in the swap of this guest: `pvdump prepare --file` and `--swap`.

Called by dump/prepare.py. The rules: a file is written with real zeros, since extents that were
only allocated read as zeros whatever the image writes to them; it is on the disk, and the file
system's journal empty, before it is a target; it is immutable from then on. An existing file is
never written, but for one of ours. Of swap only the first 512 bytes are written.
"""

from __future__ import annotations

import os
import stat
import uuid
from contextlib import suppress
from pathlib import Path

from pvfw import superblock
from pvfw.errors import DumpError, TargetRefused

from ..dump import disk as disks
from ..dump import immutable, newfile, swapspace
from ..dump.disk import MIB, PAGE, DiskError
from ..dump.meter import Progress
from ..streams import pasted
from . import device, filesystem, freeze, stamp, swap
from .locate import locate

ZEROS = bytes(MIB)
FREE = 1024  # bytes of swap that belong to nobody


def file(path: Path, size: int, progress: Progress) -> superblock.Superblock:
    """Make a file that is a target.

    Args:
        path: must not exist.
        size: bytes, whole pages.
        progress: is told the size, and the bytes that each step has written.

    Raises:
        DumpError: it exists, or cannot be a target; nothing is left of it.
    """
    newfile.refuse_dev(path)
    if disks.exists(path):
        raise DiskError(
            f"{path} exists; --file makes a new file. A target of ours is taken by --again"
        )
    # With the links of its name.
    check_folder(Path(os.path.abspath(path)).parent)  # noqa: PTH100
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise DiskError(f"{path}: {error.strerror}") from error
    try:
        block = superblock.Superblock(uuid.uuid4().bytes, size)
        _fill(fd, block, progress)
        locate(path)
        freeze.settle(fd, path)
        immutable.set_immutable(fd, path, True)
        stamp.look(path, locate(path))
    except BaseException as error:
        with suppress(DumpError):
            immutable.set_immutable(fd, path, False)
        with suppress(OSError):
            path.unlink()
        if isinstance(error, OSError):
            raise DiskError(f"{path}: {size} bytes: {error.strerror}") from error
        raise
    finally:
        os.close(fd)
    return block


def check_folder(folder: Path) -> None:
    """Refuse a folder whose files cannot be targets, before anything is written.

    Raises:
        DumpError: it cannot be opened, or its file system or disk is not of the kind.
    """
    try:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise DiskError(f"{folder}: {error.strerror}") from error
    try:
        filesystem.check(fd, folder)
        device.spans(os.fstat(fd).st_dev, 0, PAGE)
    finally:
        os.close(fd)


def _fill(fd: int, block: superblock.Superblock, progress: Progress) -> None:
    """Write zeros all over a file, and then the superblock and its copy."""
    progress.expect(block.size)
    at = 0
    while at < block.size:
        done = os.pwrite(fd, ZEROS[: block.size - at], at)
        progress.advance(done)
        at += done
    os.fsync(fd)
    for place in (block.copy_at(), 0):
        os.pwrite(fd, block.encode(), place)
        os.fsync(fd)


def take_swap(path: Path, force: bool) -> superblock.Superblock:
    """Make a target of swap space that is not in use.

    Args:
        path: of a device or file that mkswap has made swap.
        force: also over a dump that was not collected, and what else the first bytes have.

    Raises:
        DumpError: it is none, is in use, or cannot be a target; nothing was changed.
    """
    status = _status(path)
    if swap.is_active(status):
        raise DiskError(
            f"{path} is in use as swap: swapoff {pasted(path)} && pvdump prepare --swap "
            f"{pasted(path)} && swapon {pasted(path)}"
        )
    place = locate(path)
    if not place.swap:
        raise DiskError(f"{path} is no swap space of this kind of machine: mkswap {pasted(path)}")
    if place.size < superblock.DATA_OFFSET + MIB:
        raise DiskError(f"{path} has {place.size} bytes; a target needs 2 MiB at least")
    with disks.writing(path) as disk:
        head = disk.read(0, FREE)
        if head.strip(b"\0") and not force:
            _refuse_other(path, head)
        block = superblock.Superblock(uuid.uuid4().bytes, place.size)
        swapspace.sign(disk, block)
        if place.file:
            freeze.settle(disk.fd, path)
    stamp.look(path, place)
    return block


def _refuse_other(path: Path, head: bytes) -> None:
    """Refuse what stands in the first bytes of swap, unless it is a target without a dump."""
    try:
        block = superblock.decode(head)
    except TargetRefused as error:
        raise TargetRefused(
            f"{path}: its first {FREE} bytes hold something, perhaps a boot loader; nothing was "
            "changed. If it is not needed any more, say --force"
        ) from error
    if block.state != superblock.READY and not block.collected:
        raise TargetRefused(
            f"{path} holds a dump, which was not collected; nothing was changed. "
            f"`pvdump collect {pasted(path)} OUT` gets it. If it is not needed any more, say "
            f"--force"
        )


def _status(path: Path) -> os.stat_result:
    try:
        status = path.stat()
    except OSError as error:
        raise DiskError(f"{path}: {error.strerror}") from error
    if not stat.S_ISBLK(status.st_mode) and not stat.S_ISREG(status.st_mode):
        raise DiskError(f"{path} is neither a disk nor a file")
    return status
