"""Where a new file must not be made: in the place of a device, of an input, of what is no file.

Used by what makes files that a person names. The rule: it is refused before anything is written.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import sys
from collections.abc import Iterable
from pathlib import Path

from .disk import DiskError


def refuse_dev(path: Path) -> None:
    """Refuse to make a file where devices are: a mistyped device would fill the memory.

    Raises:
        DiskError: path is below /dev, and not below /dev/shm.
    """
    # Of a link that dangles, not of what it names; the folder may be named by a link.
    full = os.path.join(os.path.realpath(path.parent), path.name)  # noqa: PTH118
    if full.startswith("/dev/") and not full.startswith("/dev/shm/"):
        raise DiskError(f"there is no device {path}, and files are not made below /dev")


def refuse_special(path: Path) -> None:
    """Refuse to put a file in the place of what is no file: a device, a pipe, a socket, a folder.

    Raises:
        DiskError: there is such a thing. A link is none: it is replaced itself.
    """
    try:
        mode = path.lstat().st_mode
    except OSError:
        return
    if stat.S_ISDIR(mode):
        raise DiskError(f"{path}: {os.strerror(errno.EISDIR)}")
    if not stat.S_ISREG(mode) and not stat.S_ISLNK(mode):
        raise DiskError(f"{path} is no file, and is not replaced")


def refuse_input(out: Path | None, inputs: Iterable[Path]) -> None:
    """Refuse an output that is, by whatever name, an input of the same command.

    Args:
        out: of a file; None for standard output.
        inputs: that are read for it; what is not there is no problem.

    Raises:
        DiskError: it is one of them.
    """
    try:
        there = os.fstat(sys.stdout.fileno()) if out is None else out.stat()
    except (OSError, ValueError):  # there is none, or standard output is no file
        return
    for path in inputs:
        with contextlib.suppress(OSError):
            if _is_same(there, path.stat()):
                raise DiskError(
                    f"{out or 'standard output'} is {path} itself, which is read for it: "
                    f"name another file"
                )


def _is_same(one: os.stat_result, other: os.stat_result) -> bool:
    # A device may have several nodes.
    if stat.S_ISBLK(one.st_mode) and stat.S_ISBLK(other.st_mode):
        return one.st_rdev == other.st_rdev
    return os.path.samestat(one, other)
