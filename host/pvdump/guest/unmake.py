"""Targets that `pvdump setup` made, taken away by `pvdump remove`.

Used by changes.py. The rule: a target that holds a dump which was not collected stays as it is.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Optional

from pvfw import superblock
from pvfw.errors import DumpError, NoSuperblock

from ..dump import disk as disks
from ..dump import immutable
from ..dump.disk import TargetDisk
from ..place import swap
from ..streams import pasted
from . import programs
from .steps import Entry


def file(entry: Entry) -> str:
    """Remove a target that is a file. Returns what is to be said, or ""."""
    path = Path(entry["key"])
    if not disks.exists(path):
        return ""
    if (why := _kept(path)) is not None:
        return why
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        immutable.set_immutable(fd, path, False)
    finally:
        os.close(fd)
    path.unlink()
    return ""


def device(entry: Entry) -> str:
    """Take the superblock off a disk or volume. Returns what is to be said, or ""."""
    path = Path(entry["key"])
    if (why := _kept(path)) is not None:
        return why
    with disks.writing(path) as disk:
        copy = disk.superblock().copy_at()
        _clear(disk, 0)
        if copy is not None and copy + superblock.COPY_SIZE <= disk.size:
            _clear(disk, copy)
    return ""


def swap_space(entry: Entry) -> str:
    """Take the superblock off swap space, which stays swap. Returns what is to be said, or ""."""
    path = Path(entry["key"])
    if (why := _kept(path)) is not None:
        return why
    with unused(path), disks.writing(path) as disk:
        _clear(disk, 0)
    return ""


@contextmanager
def unused(path: Path) -> Iterator[None]:
    """Let the kernel not swap to a device or file meanwhile.

    Raises:
        ProgramError: what is in it does not fit into the memory.
    """
    active = swap.is_active(path.stat())
    if active:
        programs.run(["swapoff", str(path)])
    try:
        yield
    finally:
        if active:
            programs.run(["swapon", str(path)])


def _kept(path: Path) -> Optional[str]:
    """Tell why a target stays as it is, "" where it is none (any more); None where it may go."""
    try:
        with disks.reading(path) as disk:
            block = superblock.decode(disk.read(0, superblock.SUPERBLOCK_SIZE))
    except NoSuperblock:
        return ""
    except DumpError as error:
        return f"{path}: {error}; it stays as it is"
    if block.state != superblock.READY and not block.collected:
        return (
            f"{path} holds a dump that was not collected, and stays: "
            f"`pvdump collect {pasted(path)} OUT`"
        )
    return None


def _clear(disk: TargetDisk, at: int) -> None:
    """Write zeros over a superblock; the rest of its page stays, as the header of swap must."""
    page = bytearray(disk.read(at, superblock.COPY_SIZE))
    page[: superblock.SUPERBLOCK_SIZE] = bytes(superblock.SUPERBLOCK_SIZE)
    disk.write(at, bytes(page))
