"""Swap space as a target: the dump goes over its pages, and its header stays.

Used by locate.py and create.py; dump/swapspace.py has the first page. Rules: swap that holds a
hibernated system or is to take one is refused; so is, to prepare it, swap that is in use.
Source: Linux include/linux/swap.h (union swap_header), kernel/power/swap.c, mkswap(8).
"""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

from ..dump.disk import PAGE, DiskError
from ..dump.swapspace import SIGNATURE

SWAPS = Path("/proc/swaps")
CMDLINE = Path("/proc/cmdline")
POWER = Path("/sys/power")
DISK_LINKS = Path("/dev/disk")
SUSPENDED = (b"S1SUSPEND\0", b"S2SUSPEND\0")
BY = {
    "UUID": "by-uuid",
    "LABEL": "by-label",
    "PARTUUID": "by-partuuid",
    "PARTLABEL": "by-partlabel",
}


def refuse_hibernation(path: Path, status: os.stat_result, page: bytes) -> None:
    """Refuse swap that holds a hibernated system or is to take one.

    Args:
        status: of the device or file.
        page: its first page.

    Raises:
        DiskError: it does, or is.
    """
    if page[PAGE - len(SIGNATURE) : PAGE] in SUSPENDED:
        raise DiskError(f"{path} holds a hibernated system, which the dump would destroy")
    device = status.st_rdev if stat.S_ISBLK(status.st_mode) else status.st_dev
    if device in _resume_devices():
        raise DiskError(
            f"{path} is where this system resumes from (resume=): a dump there would destroy a "
            "hibernated system; use other swap, or take resume= off the kernel's command line"
        )


def is_active(status: os.stat_result) -> bool:
    """Tell whether the kernel swaps to a device or file."""
    with contextlib.suppress(OSError):
        for line in SWAPS.read_bytes().splitlines()[1:]:
            name = line.split()[0].decode("unicode_escape").encode("latin-1")
            with contextlib.suppress(OSError):
                other = os.stat(name)  # noqa: PTH116 - bytes
                if stat.S_ISBLK(status.st_mode):
                    if stat.S_ISBLK(other.st_mode) and other.st_rdev == status.st_rdev:
                        return True
                elif (other.st_dev, other.st_ino) == (status.st_dev, status.st_ino):
                    return True
    return False


def _resume_devices() -> set[int]:
    """Return the devices that the kernel resumes from."""
    found = set()
    with contextlib.suppress(OSError, ValueError):
        major, minor = map(int, (POWER / "resume").read_text().split(":"))
        if major or minor:
            found.add(os.makedev(major, minor))
    with contextlib.suppress(OSError):
        for word in CMDLINE.read_text(errors="replace").split():
            if word.startswith("resume="):
                with contextlib.suppress(OSError, ValueError):
                    found.add(_named(word.partition("=")[2].strip('"')))
    return found


def _named(name: str) -> int:
    """Return the device that a value of resume= names."""
    kind, equals, value = name.partition("=")
    if equals and kind in BY:
        return (DISK_LINKS / BY[kind] / value).stat().st_rdev
    if ":" in name and "/" not in name:
        major, minor = map(int, name.split(":")[:2])
        return os.makedev(major, minor)
    return Path(name).stat().st_rdev
