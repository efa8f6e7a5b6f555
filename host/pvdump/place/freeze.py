"""A file system frozen and thawed at once, so that its journal has nothing left to replay.

Used by create.py. The rule: whatever becomes of the process that froze it, a forked one thaws it
at that one's end, or after TIMEOUT.
Source: Linux fs/ioctl.c (ioctl_fsfreeze, ioctl_fsthaw), fsfreeze(8).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import signal
from pathlib import Path

from .filesystem import FileSystemError

FIFREEZE, FITHAW = 0xC0045877, 0xC0045878
TIMEOUT = 5.0  # s


def settle(fd: int, path: Path) -> None:
    """Freeze and thaw a file system.

    Args:
        fd: of a file or folder on it.
        path: its name, for messages.

    Raises:
        FileSystemError: it cannot be frozen, or was frozen already.
    """
    reads, writes = os.pipe()
    pid = os.fork()
    if pid == 0:
        _guard(fd, reads, writes)
    os.close(reads)
    try:
        fcntl.ioctl(fd, FIFREEZE, 0)
        fcntl.ioctl(fd, FITHAW, 0)
        os.write(writes, b"thawed")
    except OSError as error:
        if error.errno == errno.EBUSY:
            os.write(writes, b"not ours to thaw")
            raise FileSystemError(f"{path}: its file system is frozen: fsfreeze -u it") from error
        raise FileSystemError(f"{path}: fsfreeze: {error.strerror}") from error
    finally:
        os.close(writes)
        os.waitpid(pid, 0)


def _guard(fd: int, reads: int, writes: int) -> None:
    """Thaw once in TIMEOUT, and at the other process's end, until that says that it has thawed."""
    try:
        os.close(writes)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        said = None
        while said is None:
            ready, _, _ = select.select([reads], [], [], TIMEOUT)
            if ready:
                said = os.read(reads, 16)
            if not said:
                with contextlib.suppress(OSError):
                    fcntl.ioctl(fd, FITHAW, 0)
    finally:
        os._exit(0)
