"""The counters of boots on the targets of this guest, those that pvboot finds by itself.

Used by guest/booted.py. pvboot looks at whole PV disks, at their partitions, and at files of some
names on ext4 (pvfw/kernel/counter.py); so does this, in the same order. Rules: what cannot be read
or is no target has no counter; a counter is written through the extents on the PV disk, as stamp.py
writes a nonce, and nothing but its page is.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, Optional

from pvfw import superblock, tries
from pvfw.errors import DumpError, TargetRefused
from pvfw.tries import Tries
from xenpv.block import vdev

from ..dump.disk import PAGE
from . import device, filesystem, stamp
from .locate import Place, locate

KINDS = (b"ext2", b"ext3", b"ext4")


class Counter(NamedTuple):
    """A target that may have a counter.

    Attributes:
        path: of the device or file.
        place: where it is.
        tries: what is counted; None: nothing is.
    """

    path: Path
    place: Place
    tries: Optional[Tries]


def look() -> list[Counter]:
    """Find the targets that pvboot finds, in its order."""
    found = []
    for path in _paths():
        with suppress(DumpError, OSError):
            place = _target(path)
            if place is not None:
                raw = stamp.page(path, place, tries.AT)
                found.append(Counter(path, place, tries.decode(raw)))
    return found


def write(counter: Counter, found: Optional[Tries]) -> None:
    """Write a counter; None takes it away.

    Raises:
        DumpError: the target was changed meanwhile, or cannot be written.
    """
    raw = b"" if found is None else found.encode()
    stamp.put(counter.path, counter.place, tries.AT, raw.ljust(PAGE, b"\0"))


def _target(path: Path) -> Optional[Place]:
    """Return where a target is; None where there is none that may have a counter."""
    with path.open("rb") as stream:
        if stream.read(len(superblock.MAGIC)) != superblock.MAGIC:
            return None
    place = locate(path)
    if place.swap:
        return None
    try:
        block = superblock.decode(stamp.page(path, place, 0))
        copy = block.copy_at()
        if copy is None or block.data_offset < tries.AT + PAGE or block.size > place.size:
            return None
        last = superblock.decode(stamp.page(path, place, copy))
    except TargetRefused:
        return None
    return place if last.uuid == block.uuid else None


def _paths() -> Iterator[Path]:
    """Yield the devices and files that may be targets."""
    mounts = _mounts()
    for disk in _disks():
        parts = [child for child in disk.iterdir() if (child / "partition").exists()]
        numbers = sorted((int((part / "partition").read_text()), part) for part in parts)
        folders = [disk, *(part for _, part in numbers)]
        for folder in folders:
            yield device.DEVICES / folder.name
        for folder in folders:
            for mount in mounts.get((folder / "dev").read_text().strip(), ()):
                for name in tries.PATHS:
                    path = mount / name[1:]
                    if path.is_file() and not path.is_symlink():
                        yield path


def _disks() -> list[Path]:
    """Return the folders of the PV disks in sysfs, in the order of their numbers."""
    found = []
    for link in device.SYS_DEV_BLOCK.iterdir():
        folder = link.resolve()
        match = re.fullmatch(r"vbd-(\d+)", (folder / "device").resolve().name)
        if match and (folder / "device/driver").resolve().name == device.DRIVER:
            found.append((int(match[1]), folder))
    return [folder for number, folder in sorted(found) if vdev.name(number)]


def _mounts() -> dict[str, list[Path]]:
    """Return where ext4 is mounted whole, by the number of its device."""
    found: dict[str, list[Path]] = {}
    for line in filesystem.MOUNTS.read_bytes().splitlines():
        fields, _, rest = line.partition(b" - ")
        words = fields.split()
        kind = b"".join(rest.split()[:1])
        if len(words) > 5 and words[3] == b"/" and kind in KINDS:
            name = re.sub(rb"\\([0-7]{3})", lambda m: bytes([int(m[1], 8)]), words[4])
            found.setdefault(words[2].decode(), []).append(Path(os.fsdecode(name)))
    return found
