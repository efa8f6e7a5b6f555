"""The targets of a configuration: each is looked at as the image will, and refused if it would be.

Used by command.py. The rule: the nonce, which makes the configuration of before void, is written
only when the whole new configuration is on the disk.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from pvfw import config, superblock
from pvfw.errors import TargetRefused
from pvfw.extents import Extents

from ..dump import disk as disks
from ..dump.disk import PAGE, DiskError
from ..dump.immutable import IMMUTABLE, attributes
from ..dump.swapspace import is_swap
from ..place import stamp as stamps
from ..place.locate import Place, locate
from .settings import Wanted

USER_PAGES = 8  # of a level: they are left out


def made(wanted: Wanted, level: int, devices: Path) -> config.Target:
    """Make a target of the configuration.

    Args:
        wanted: what was asked for.
        level: of the dump.
        devices: the folder of the disks, for those whose UUID is to be read.

    Raises:
        DumpError: it is no target, or would be refused.
    """
    if wanted.place is None:
        number = wanted.uuid or _read_uuid(devices / wanted.name)
        return config.Target(wanted.name, number)
    place = _checked(wanted.place, level)
    block = stamps.look(wanted.place, place)
    nonce = os.urandom(config.NONCE_SIZE)
    return config.Target(place.disk.name, block.uuid, nonce, Extents(place.raw()), place.swap)


def stamp(wanted: Sequence[Wanted], made: Sequence[config.Target]) -> None:
    """Write the nonces of the targets that have one.

    Raises:
        DumpError: a target was changed meanwhile, or cannot be written.
    """
    for one, target in zip(wanted, made):
        if one.place is not None:
            place = locate(one.place)
            if place.raw() != target.extents.raw():
                raise DiskError(f"{one.place} was moved meanwhile: once more")
            stamps.stamp(one.place, place, target.nonce)


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
            raise DiskError(f"{path} is not immutable, so it may be moved: chattr +i {path}")
    return place


def _read_uuid(path: Path) -> bytes:
    """Read the UUID of a target that is to take a dump."""
    with disks.reading(path) as disk:
        block = disk.superblock()
        if why := superblock.refusal(block, disk.size, False, 0):
            raise TargetRefused(f"{disk.path}: {why}")
        if is_swap(disk.read(0, PAGE)):
            raise TargetRefused(f"{disk.path} is swap as well: say --target file:{disk.path}")
        number: bytes = block.uuid
        return number
