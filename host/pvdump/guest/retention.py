"""Which dumps go when there are too many of them, or too little room.

Used by gather.py. The rules: the newest dump stays. Dumps in a row that have the same reason are a
series; its first dump tells most and goes after all others that are not first, the oldest first.
Nothing is removed for a dump that would not fit all the same.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Optional

from pvfw.superblock import MIB

from ..dump.disk import DiskError
from . import dumps
from .dumps import Dump

RESERVE = 2 << 30  # bytes


def order(found: Sequence[Dump]) -> list[Dump]:
    """Return the dumps that may be removed, in the order in which they go.

    Args:
        found: all dumps, the oldest first.
    """
    firsts: list[Dump] = []
    others: list[Dump] = []
    for before, dump in zip([None, *found], found[:-1]):
        is_first = before is None or before.facts.reason != dump.facts.reason
        (firsts if is_first else others).append(dump)
    return others + firsts


def keep(directory: Path, most: int) -> list[Dump]:
    """Remove dumps until there are `most`. Returns those that were removed. Raises DiskError."""
    found = dumps.found(directory)
    gone = order(found)[: max(len(found) - most, 0)]
    for dump in gone:
        dumps.remove(dump)
    return gone


def make_room(directory: Path, size: int, reserve: Optional[int]) -> list[Dump]:
    """Remove dumps until a new one has room.

    Args:
        size: bytes that it takes.
        reserve: bytes that are to be free beside it; None: RESERVE, or a tenth of the file system
            where that is less.

    Returns:
        the dumps that were removed.

    Raises:
        DiskError: there is too little room even then, and nothing was removed; or a dump cannot be
            removed.
    """
    gone: list[Dump] = []
    if reserve is None:
        reserve = min(RESERVE, _room(directory)[1] // 10)
    need = size + reserve
    if _free(directory) >= need:
        return gone
    candidates = order(dumps.found(directory))
    most = _free(directory) + sum(dump.size() for dump in candidates)
    if most < need:
        raise DiskError(
            f"{directory} has {_free(directory) // MIB} MiB free, the dump needs {size // MIB} MiB "
            f"and {reserve // MIB} MiB are to stay free (keep_free): the dump stays on its "
            f"target; make room, then `pvdump collect`"
        )
    for dump in candidates:
        if _free(directory) >= need:
            break
        dumps.remove(dump)
        gone.append(dump)
    return gone


def _free(directory: Path) -> int:
    return _room(directory)[0]


def _room(directory: Path) -> tuple[int, int]:
    """Return the bytes that are free on a file system, and those that it has."""
    try:
        room = os.statvfs(directory)
    except OSError as error:
        raise DiskError(f"{directory}: {error.strerror}") from error
    # A file system that has no figures says 0 of 0.
    if not room.f_blocks:
        return sys.maxsize, sys.maxsize
    return room.f_bavail * room.f_frsize, room.f_blocks * room.f_frsize
