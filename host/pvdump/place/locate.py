"""The place of a target on a PV disk: of a file, a partition, a logical volume, or swap in one.

Used by create.py and by arm. The rule: the place is whole pages of one PV disk, in at most as many
extents as the image takes.
"""

from __future__ import annotations

import os
import stat
import struct
from pathlib import Path
from typing import NamedTuple

from pvfw import extents as layout

from ..dump import swapspace
from ..dump.disk import PAGE, DiskError, TargetDisk
from ..streams import pasted
from . import device, fiemap, filesystem, swap
from .device import SECTOR, Vbd

# Of one extent in the image's configuration, whose sectors are an u32.
LENGTH_MAX = (1 << 32) * SECTOR - PAGE


class Place(NamedTuple):
    """Where a target is.

    Attributes:
        disk: the PV disk.
        extents: first sector and sectors of each.
        size: bytes.
        swap: whether it is swap as well.
        file: whether it is a file, not a device.
    """

    disk: Vbd
    extents: list[tuple[int, int]]
    size: int
    swap: bool
    file: bool

    def raw(self) -> bytes:
        """Return the extents as the image's configuration has them."""
        return b"".join(struct.pack(layout.EXTENT, *extent) for extent in self.extents)


def locate(path: Path) -> Place:
    """Find a file or block device on the PV disk that it is on.

    Raises:
        DiskError, FileSystemError: it is no place for a target; the message says why.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise DiskError(f"{path}: {error.strerror}") from error
    try:
        disk = TargetDisk(path, fd)
        page = disk.read(0, PAGE)
        size = disk.size // PAGE * PAGE
        status = os.fstat(fd)
        is_swap = swapspace.is_swap(page)
        if is_swap or page[-10:] in swap.SUSPENDED:
            swap.refuse_hibernation(path, status, page)
        if disk.device:
            parts = [(0, size)]
            number = status.st_rdev
        else:
            filesystem.check(fd, path)
            if disk.size % PAGE:
                raise DiskError(f"{path} has {disk.size} bytes, which are no whole pages")
            parts = _extents(fd, path, size, is_swap)
            number = status.st_dev
    finally:
        os.close(fd)
    return _place(path, number, parts, is_swap, not stat.S_ISBLK(status.st_mode))


def _extents(fd: int, path: Path, size: int, is_swap: bool) -> list[tuple[int, int]]:
    try:
        return fiemap.extents(fd, path, size)
    except fiemap.Unwritten as error:
        if not is_swap:
            raise
        mib, name = -(-size // (1 << 20)), pasted(path)
        raise DiskError(
            f"{error}; make the swap file anew: swapoff {name}; dd if=/dev/zero of={name} bs=1M "
            f"count={mib} conv=fsync && mkswap {name} && pvdump prepare --swap {name} && "
            f"swapon {name}"
        ) from error


def _place(
    path: Path, number: int, parts: list[tuple[int, int]], is_swap: bool, file: bool
) -> Place:
    found = [span for offset, length in parts for span in device.spans(number, offset, length)]
    disks = sorted({span.disk for span in found})
    if len(disks) > 1:
        names = ", ".join(disk.name for disk in disks)
        raise DiskError(f"{path} is on several PV disks ({names}); a target is on one")
    extents: list[list[int]] = []
    for span in found:
        if span.offset % PAGE or span.length % PAGE:
            raise DiskError(
                f"{path}: {span.length} bytes at byte {span.offset} of {span.disk.name} are no "
                f"whole pages of {PAGE} bytes: its partition begins at an odd sector"
            )
        if extents and sum(extents[-1]) == span.offset:
            extents[-1][1] += span.length
        else:
            extents.append([span.offset, span.length])
    pieces = [
        ((begin + at) // SECTOR, min(length - at, LENGTH_MAX) // SECTOR)
        for begin, length in extents
        for at in range(0, length, LENGTH_MAX)
    ]
    if len(pieces) > layout.EXTENTS_MAX:
        raise DiskError(
            f"{path} is in {len(pieces)} extents, {layout.EXTENTS_MAX} at most are possible: "
            "remove it, and make it anew while the file system has more room, or elsewhere"
        )
    return Place(disks[0], pieces, sum(length for _, length in parts), is_swap, file)
