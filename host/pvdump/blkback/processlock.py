"""The lock that lets only one process of a machine do what two would spoil for each other.

Taken by `pvdump blkback run`, whose second one would take the connections of the first for broken
ones, and by `pvdump daemon`. The rule: it ends with its process, however that ends; the file stays,
and its content only helps the message.
"""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

from xenpv.text import printable


class LockError(Exception):
    """The lock cannot be taken; the message says who has it, or why."""


class ProcessLock:
    """Holds the lock, for a `with`. Raises LockError.

    Args:
        path: of its file.
        what: what the process that has the lock does, for the message.
    """

    def __init__(self, path: Path, what: str = "`pvdump blkback run` serves the disks") -> None:
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise LockError(f"{path}: {error.strerror}; root is needed") from None
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = printable(os.read(self._fd, 20))
            os.close(self._fd)
            if error.errno != errno.EWOULDBLOCK:
                raise LockError(f"{path}: {error.strerror}") from None
            raise LockError(f"another {what}, process {holder}; end it first") from None
        os.ftruncate(self._fd, 0)
        os.write(self._fd, b"%d" % os.getpid())

    def __enter__(self) -> ProcessLock:
        return self

    def __exit__(self, *exception: object) -> None:
        os.close(self._fd)
