"""The nonce of arm time, written into a target's superblock through its extents.

Used by arm, and by boots.py for another page. A page is written as the image will write: on the PV
disk, past the file system and past the partition, by O_DIRECT. Before, what the extents have must
be what the file has; so a place that was found wrongly is never written. The file's pages are
dropped from the page cache afterwards, and read again from the disk; so both ways give the same
again.
"""

from __future__ import annotations

import mmap
import os
from pathlib import Path

from pvfw import superblock
from pvfw.errors import TargetRefused

from ..dump.disk import PAGE, DiskError
from ..streams import pasted
from . import swap
from .device import SECTOR
from .locate import Place


def look(path: Path, place: Place) -> superblock.Superblock:
    """Read a target's superblock, by name and through its extents.

    Raises:
        DiskError: they differ, or cannot be read.
        TargetRefused: there is none, or it is another target's; or it is not ready.
    """
    block = _block(path, place, 0)
    if why := superblock.refusal(block, place.size, False, 0):
        raise TargetRefused(f"{path}: {why}")
    if block.size != place.size:
        raise TargetRefused(
            f"{path} has {place.size} bytes, its superblock says {block.size}: prepare it anew"
        )
    if not place.swap:
        copy = _block(path, place, block.copy_at())
        if copy.uuid != block.uuid:
            raise TargetRefused(f"{path}: the copy of its superblock is another target's")
    return block


def choose(path: Path, place: Place, block: superblock.Superblock) -> bytes:
    """Choose the nonce that a target is to be armed with.

    Linux refuses to write to a disk that is in use as swap as a whole (ETXTBSY). Such a target
    keeps the nonce that it has from its preparation.

    Args:
        path, place: of the target.
        block: its superblock.

    Returns:
        32 bytes.

    Raises:
        DiskError: it is such a disk, and has none.

    Source: Linux block/fops.c (blkdev_write_iter).
    """
    if not place.swap or not swap.is_active(place.disk.node.stat()):
        return os.urandom(len(block.nonce))
    if not any(block.nonce):
        raise DiskError(
            f"{path} was prepared by an earlier version: swapoff {pasted(path)} && pvdump prepare "
            f"--swap {pasted(path)} && swapon {pasted(path)}"
        )
    return block.nonce


def stamp(path: Path, place: Place, nonce: bytes) -> None:
    """Write a nonce into the superblock of a target, and into its copy where it has one.

    Raises: as look().
    """
    block = look(path, place)
    if block.nonce == nonce:
        return
    block.nonce = nonce
    raw = block.encode()
    # The copy goes first: until the superblock has the nonce, the one of before counts.
    for at in [0] if place.swap else [block.copy_at(), 0]:
        content = bytearray(page(path, place, at))
        content[: len(raw)] = raw
        put(path, place, at, bytes(content))


def put(path: Path, place: Place, at: int, content: bytes) -> None:
    """Write a page of a target through its extents.

    Args:
        path, place: of the target.
        at: where the page begins, bytes.
        content: of the page.

    Raises:
        DiskError: what the extents have is not what the file has, before or afterwards.
    """
    page(path, place, at)
    _transfer(place.disk.node, _sector(place, at) * SECTOR, content)
    if page(path, place, at) != content:
        raise DiskError(f"{path}: what was written through its extents is not what is there")


def _block(path: Path, place: Place, at: int) -> superblock.Superblock:
    try:
        return superblock.decode(page(path, place, at))
    except TargetRefused as error:
        raise TargetRefused(f"{path}: byte {at}: {error}") from error


def page(path: Path, place: Place, at: int) -> bytes:
    """Return a page of the target that reads the same by name and through the extents.

    Raises:
        DiskError: it does not, or cannot be read.
    """
    named = _transfer(path, at)
    found = _transfer(place.disk.node, _sector(place, at) * SECTOR)
    if named != found:
        raise DiskError(
            f"{path}: byte {at} is not at sector {_sector(place, at)} of {place.disk.name}, where "
            "it was looked for; nothing was written"
        )
    return named


def _sector(place: Place, at: int) -> int:
    """Return the sector of the disk that has a byte of the target."""
    for first, sectors in place.extents:
        if at < sectors * SECTOR:
            return first + at // SECTOR
        at -= sectors * SECTOR
    raise DiskError("a byte behind the end of the target")


def _transfer(path: Path, offset: int, content: bytes | None = None) -> bytes:
    """Read a page past the page cache, or write one."""
    flags = os.O_RDONLY if content is None else os.O_WRONLY
    try:
        fd = os.open(path, flags | os.O_DIRECT | os.O_CLOEXEC)
        try:
            with mmap.mmap(-1, PAGE) as buffer:
                if content is None:
                    done = os.preadv(fd, [buffer], offset)
                    # A page that was read before may be older than what is on the disk.
                    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
                else:
                    buffer[:] = content
                    done = os.pwritev(fd, [buffer], offset)
                    os.fsync(fd)
                found = buffer[:]
        finally:
            os.close(fd)
    except OSError as error:
        raise DiskError(f"{path}: byte {offset}: {error.strerror}") from error
    if done != PAGE:
        raise DiskError(f"{path} ends at byte {offset + done}")
    return found
