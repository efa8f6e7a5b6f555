"""The targets of a configuration: each is looked at as the image will, and refused if it would be.

Used by arm, test and status. The rule: the nonce, which makes the configuration of before void, is
written only when the whole new configuration is on the disk.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Optional

from pvfw import config, superblock
from pvfw.errors import TargetRefused
from pvfw.extents import Extents
from pvfw.superblock import Superblock
from xenpv.block.blkif import PAGE_SECTORS, SECTOR

from ..dump import disk as disks
from ..dump.disk import PAGE, DiskError
from ..dump.immutable import IMMUTABLE, attributes
from ..dump.swapspace import is_swap
from ..place import stamp as stamps
from ..place.locate import Place, locate
from ..streams import pasted
from .settings import Wanted

DEVICES = Path("/dev")
USER_PAGES = 8  # of a level: they are left out


class Found(NamedTuple):
    """A target that takes a dump.

    Attributes:
        wanted: what was asked for.
        target: of the configuration.
        room: bytes that a dump may have; None where a UUID was said, and nothing was read.
    """

    wanted: Wanted
    target: config.Target
    room: Optional[int]


def where(wanted: Wanted) -> Path:
    """Return the file or device that a target is."""
    return DEVICES / wanted.name if wanted.place is None else wanted.place


def find(wanted: Wanted, level: int) -> Found:
    """Look at a target that was asked for.

    Args:
        wanted: what was asked for.
        level: of the dump.

    Raises:
        DumpError: it is no target, or would be refused.
    """
    if wanted.place is None:
        if wanted.uuid is not None:
            return Found(wanted, config.Target(wanted.name, wanted.uuid), None)
        block = _read_superblock(where(wanted))
        return Found(wanted, config.Target(wanted.name, block.uuid), block.room())
    place = _checked(wanted.place, level)
    block = stamps.look(wanted.place, place)
    nonce = stamps.choose(wanted.place, place, block)
    target = config.Target(place.disk.name, block.uuid, nonce, Extents(place.raw()), place.swap)
    return Found(wanted, target, block.room())


def stamp(found: Sequence[Found]) -> None:
    """Write the nonces of the targets that have one.

    Raises:
        DumpError: a target was changed meanwhile, or cannot be written.
    """
    for path, target in ((each.wanted.place, each.target) for each in found):
        if path is not None:
            place = locate(path)
            if place.raw() != target.extents.raw():
                raise DiskError(f"{path} was moved meanwhile: once more")
            stamps.stamp(path, place, target.nonce)


def hold(wanted: Wanted, target: config.Target) -> int:
    """Hold a target against what the configuration says of it, as the image will after a panic.

    The superblock is read from the disk past all caches, through the extents of the configuration.

    Args:
        wanted: what was asked for.
        target: what the configuration has.

    Returns:
        bytes that a dump may have.

    Raises:
        DumpError: the image would refuse it; the message says why.
    """
    node = DEVICES / wanted.name
    if wanted.place is not None:
        place = locate(wanted.place)
        if place.raw() != target.extents.raw():
            raise TargetRefused(f"{wanted.place} was moved since")
        node = place.disk.node
    with disks.reading(node) as disk:
        size = disk.size if target.extents is None else target.extents.sectors * SECTOR
    try:
        block = superblock.decode(_page(node, target, 0))
        target.check(block)
        if why := superblock.refusal(block, size, False, 0):
            raise TargetRefused(why)
        if target.has_copy():
            target.check(superblock.decode(_page(node, target, block.copy_at())))
    except TargetRefused as error:
        raise TargetRefused(f"{wanted}: {error}") from error
    room: int = block.room()
    return room


def _page(node: Path, target: config.Target, offset: int) -> bytes:
    """Read a page of a target past the page cache, as the image does: by its extents."""
    runs = [(offset // SECTOR, PAGE_SECTORS)]
    if target.extents is not None:
        runs = list(target.extents.runs(offset // SECTOR, PAGE_SECTORS))
    found = b""
    try:
        fd = os.open(node, os.O_RDONLY | os.O_DIRECT | os.O_CLOEXEC)
        try:
            for sector, count in runs:
                with mmap.mmap(-1, count * SECTOR) as buffer:
                    done = os.preadv(fd, [buffer], sector * SECTOR)
                    found += buffer[:done]
        finally:
            os.close(fd)
    except OSError as error:
        raise DiskError(f"{node}: byte {offset} of {target}: {error.strerror}") from error
    if len(found) != PAGE:
        raise DiskError(f"{node} ends before byte {offset} of {target}")
    return found


def _checked(path: Path, level: int) -> Place:
    place = locate(path)
    if place.swap and not level & USER_PAGES:
        raise DiskError(
            f"{path} is swap, and level {level} keeps user pages, which may be swapped out to it: "
            "use another target, or a level with 8 in it"
        )
    if place.file and not place.swap:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            flags = attributes(fd)
        finally:
            os.close(fd)
        if not flags & IMMUTABLE:
            raise DiskError(
                f"{path} is not immutable, so it may be moved: chattr +i {pasted(path)}"
            )
    return place


def _read_superblock(path: Path) -> Superblock:
    """Read the superblock of a target that is to take a dump."""
    with disks.reading(path) as disk:
        block = disk.superblock()
        if why := superblock.refusal(block, disk.size, False, 0):
            raise TargetRefused(f"{disk.path}: {why}")
        if is_swap(disk.read(0, PAGE)):
            raise TargetRefused(f"{disk.path} is swap as well: say --target file:{disk.path}")
        return block
