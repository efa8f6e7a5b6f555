"""The claim on a file or block device, so that two users do not write to it by mistake.

Used by sinks. The rules:
- A user that writes must be alone; users that only read may be several. `--shared` is refused
  nothing.
- The claim is a lock of the open file description, which ends with its process. QEMU locks bytes
  from 100 on of its images in the same way, so a writer locks those, too.
- A block device for writing is also opened exclusively, as mounts, volume managers and Linux's
  blkback do. Loop devices and swap do not show in either way, so they are asked for.
Source: Linux man-pages fcntl(2), "Open file description locks", open(2), O_EXCL; QEMU
block/file-posix.c.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from pathlib import Path

from ..dump import holders
from ..dump.holders import F_OFD_SETLK, FLOCK
from .ports import Stalled

HELD = (errno.EAGAIN, errno.EACCES)
OURS = 100  # bytes; QEMU's locks begin behind them


class InUse(Stalled):
    """Somebody else uses the file or device; `--shared` allows it. Whoever opened names it."""

    def __init__(self, holder: str) -> None:
        super().__init__(f"it is in use: {holder}; `attach --shared` gives it all the same")


def open_block(path: Path, flags: int, shared: bool) -> int:
    """Open a block device; for writing exclusively, unless it is shared.

    Returns: the descriptor. Raises: OSError, InUse.
    """
    exclusive = 0 if shared else os.O_EXCL
    try:
        fd = os.open(path, flags | exclusive)
    except OSError as error:
        if exclusive and error.errno == errno.EBUSY:
            raise InUse("a mount, a volume or another guest has it") from None
        raise
    if flags & os.O_ACCMODE == os.O_RDONLY and exclusive:
        # Nobody writes to it now; other readers are welcome.
        again = os.open(path, flags)
        os.close(fd)
        return again
    return fd


def claim(fd: int, readonly: bool, shared: bool) -> None:
    """Claim what was opened, for as long as its description is open. Raises InUse, OSError."""
    kind, length = (fcntl.F_RDLCK, OURS) if readonly or shared else (fcntl.F_WRLCK, 0)
    lock = struct.pack(FLOCK, kind, os.SEEK_SET, 0, length, 0)
    try:
        fcntl.fcntl(fd, F_OFD_SETLK, lock)
    except OSError as error:
        if error.errno in HELD and not shared:
            raise InUse("another guest or program has locked it") from None
        # A file system may have no locks.
    if not shared and (holder := holders.kernel(fd)):
        raise InUse(holder)
