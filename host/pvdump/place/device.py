"""The PV disk that a block device is a part of, and where on it.

Used by locate.py. Partitions and LVM's linear volumes are followed down to the disk. The rule: what
does anything else with the data than to move it is refused by its name.
Source: Linux Documentation/ABI/stable/sysfs-block, drivers/block/xen-blkfront.c (the driver is
"vbd", its devices are vbd-NUMBER); dmsetup(8); Linux Documentation/admin-guide/device-mapper/
linear.rst.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import NamedTuple

from xenpv.block import vdev

from ..dump.disk import DiskError

SYS_DEV_BLOCK = Path("/sys/dev/block")
DEVICES = Path("/dev")
SECTOR = 512
DEPTH = 8  # devices below each other
DRIVER = "vbd"
LVM = "LVM-"


class Vbd(NamedTuple):
    """A PV disk.

    Attributes:
        name: as Xen's tools and the image have it.
        node: its name in /dev.
        size: bytes.
    """

    name: str
    node: Path
    size: int


class Span(NamedTuple):
    """A part of a PV disk, bytes."""

    disk: Vbd
    offset: int
    length: int


def spans(number: int, offset: int, length: int, depth: int = 0) -> list[Span]:
    """Find a part of a block device on the PV disks below it.

    Args:
        number: of the device, as st_rdev.
        offset, length: of the part, bytes.

    Raises:
        DiskError: something below is no partition, LVM linear volume or PV disk.
    """
    device = f"{os.major(number)}:{os.minor(number)}"
    folder = (SYS_DEV_BLOCK / device).resolve()
    name = folder.name
    if not (SYS_DEV_BLOCK / device).exists():
        raise DiskError(f"device {device} is no disk: the file system has none, or is on several")
    if depth > DEPTH:
        raise DiskError(f"{name}: more than {DEPTH} devices are below each other")
    if offset + length > _number(folder / "size") * SECTOR:
        raise DiskError(f"{name} ends before byte {offset + length}")
    if (folder / "dm").is_dir():
        return _mapped(folder, number, offset, length, depth)
    if (folder / "partition").exists():
        start = _number(folder / "start") * SECTOR
        return spans(_device(folder.parent / "dev"), start + offset, length, depth + 1)
    return [Span(_vbd(folder), offset, length)]


def _vbd(folder: Path) -> Vbd:
    """Return the PV disk of a folder of sysfs."""
    name = folder.name
    driver = (folder / "device/driver").resolve().name
    match = re.fullmatch(r"vbd-(\d+)", (folder / "device").resolve().name)
    if name.startswith("zram"):
        raise DiskError(f"{name} is zram, compressed memory: it is lost in the crash")
    if name.startswith("loop"):
        raise DiskError(f"{name} is a loop device, no PV disk: name the file behind it")
    if name.startswith("md") and (folder / "md").is_dir():
        raise DiskError(f"{name} is RAID (md), which the image would leave inconsistent")
    if not (folder / "device/driver").exists() or driver != DRIVER or match is None:
        raise DiskError(f"{name} is no PV disk, which a dump needs: its driver is not xen-blkfront")
    if (folder / "ro").exists() and _number(folder / "ro"):
        raise DiskError(f"{name} is read-only: give the guest write access to it")
    return Vbd(vdev.name(int(match[1])), DEVICES / name, _number(folder / "size") * SECTOR)


def _mapped(folder: Path, number: int, offset: int, length: int, depth: int) -> list[Span]:
    """Follow a device of the device mapper."""
    name = f"{folder.name} ({(folder / 'dm/name').read_text().strip()})"
    uuid = (folder / "dm/uuid").read_text().strip()
    if uuid.startswith("CRYPT-"):
        raise DiskError(f"{name} is encrypted (dm-crypt): the image has no key to it")
    if not uuid.startswith(LVM):
        raise DiskError(f"{name} is no LVM volume but {uuid.partition('-')[0] or 'unknown'} (dm)")
    found = []
    end = offset + length
    for first, sectors, kind, arguments in _table(name, number):
        begin, stop = max(offset, first * SECTOR), min(end, (first + sectors) * SECTOR)
        if begin >= stop:
            continue
        if kind != "linear" or len(arguments) != 2:
            raise DiskError(f"{name} is a volume of kind {kind}: a linear one is needed")
        below, at = _parsed(name, arguments)
        at = at * SECTOR + begin - first * SECTOR
        found += spans(below, at, stop - begin, depth + 1)
    if sum(span.length for span in found) != length:
        raise DiskError(f"{name}: dmsetup does not tell all of it")
    return found


def _table(name: str, number: int) -> list[tuple[int, int, str, list[str]]]:
    """Return the lines of a device's table: first sector, sectors, kind, arguments."""
    program = shutil.which("dmsetup", path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if program is None:
        raise DiskError(f"{name}: no dmsetup, which tells where it is: `apt install dmsetup`")
    command = [program, "table", "--major", str(os.major(number)), "--minor", str(os.minor(number))]
    import subprocess  # takes a while, and few commands need it

    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    lines = [line.split() for line in done.stdout.splitlines() if line.strip()]
    if done.returncode or not lines:
        why = done.stderr.strip().splitlines() or [f"exit {done.returncode}"]
        raise DiskError(f"{name}: dmsetup table: {why[-1][:200]}")
    try:
        return [(int(first), int(count), kind, rest) for first, count, kind, *rest in lines]
    except ValueError as error:
        raise DiskError(f"{name}: dmsetup table gives {done.stdout[:80]!r}") from error


def _parsed(name: str, arguments: list[str]) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+):(\d+)", arguments[0])
    if match is None or not arguments[1].isdecimal():
        raise DiskError(f"{name}: dmsetup table gives {' '.join(arguments)[:80]!r}")
    return os.makedev(int(match[1]), int(match[2])), int(arguments[1])


def _device(path: Path) -> int:
    major, minor = path.read_text().split(":")
    return os.makedev(int(major), int(minor))


def _number(path: Path) -> int:
    return int(path.read_text())
