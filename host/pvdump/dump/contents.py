"""The contents of a disk or file that is to become a dump target.

Used by prepare. The rule: a disk counts as empty only when every byte of it that can hold data was
looked at and is zero; in a sparse file those are the parts that the file system has stored. What is
found is named, so that a person can tell whether it is still needed.
"""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pvfw import superblock, tries
from pvfw.errors import OtherVersion, TargetRefused

from ..streams import pasted
from .disk import MIB, OTHER_MADE_IT, BadPlace, TargetDisk
from .meter import Progress

ZEROS = bytes(MIB)
# Places looked at before the whole disk is, so that a used disk is refused at once, and their size.
SAMPLES = 1024
SAMPLE = 4096
# Of lseek(2); not every Python's os names them.
SEEK_DATA, SEEK_HOLE = 3, 4

# What stands at fixed places of a disk, so that a refusal can name it where there is no blkid:
# offset, bytes, name. Negative offsets count from the end.
SIGNATURES = (
    (0, b"XFSB", "an XFS file system"),
    (0, b"LUKS\xba\xbe", "a LUKS volume"),
    (0, b"QFI\xfb", "a qcow2 image (attach it, and prepare the disk the guest sees)"),
    (0, b"conectix", "a VHD image (attach it, and prepare the disk the guest sees)"),
    (0, b"KDUMP   ", "a kdump file"),
    (0, b"\x7fELF", "an ELF file"),
    (3, b"NTFS    ", "an NTFS file system"),
    (512, b"EFI PART", "a GPT partition table"),
    (512, b"LABELONE", "an LVM physical volume"),
    (1080, b"\x53\xef", "an ext2/3/4 file system"),
    (4086, b"SWAPSPACE2", "swap space"),
    (4096, b"EFI PART", "a GPT partition table"),
    (4096, b"\xfc\x4e\x2b\xa9", "a RAID member"),
    (tries.AT, tries.MAGIC, "a pvdump counter of boots"),
    (65600, b"_BHRfS_M", "a btrfs file system"),
    (-512, b"EFI PART", "a GPT partition table (its backup)"),
    (-512, b"conectix", "a VHD image (attach it, and prepare the disk the guest sees)"),
    (510, b"\x55\xaa", "a partition table or boot sector"),
)


@dataclass(frozen=True)
class Contents:
    """The contents of a disk that a person may want to keep.

    Attributes:
        name: of it, for a message; "" if the disk is empty, or a target without a dump.
        advice: what to do when it is still needed.
        block: the superblock, if the disk is a target.
    """

    name: str
    advice: str = ""
    block: superblock.Superblock | None = None


def look(disk: TargetDisk, whole: bool, progress: Progress) -> Contents:
    """Look at the contents of a disk.

    Args:
        disk: open for reading.
        whole: look at all of it, unless something is found before.
        progress: is told the size, and the bytes that each step has looked at.

    Raises:
        DiskError: the disk cannot be read at all.
    """
    try:
        return _look(disk, whole, progress)
    except BadPlace as error:
        name = f"a place that cannot be read ({error})"
        return Contents(name, _salvage(disk.path) if disk.has_dump() else "")


def _look(disk: TargetDisk, whole: bool, progress: Progress) -> Contents:
    head = disk.read(0, superblock.SUPERBLOCK_SIZE)
    if head.startswith(superblock.MAGIC):
        try:
            return _of_target(superblock.decode(head), disk.path)
        except OtherVersion as error:
            return Contents(f"a target ({error})", OTHER_MADE_IT)
        except TargetRefused:
            name = "a damaged pvdump superblock"
            return Contents(name, _salvage(disk.path) if disk.has_dump() else "")
    if _is_empty(disk, whole, progress):
        return Contents("")
    if disk.has_dump():
        return Contents("a dump without a superblock", _salvage(disk.path))
    return Contents(_blkid(disk.path) or _signature(disk) or "data of an unknown kind")


def _of_target(block: superblock.Superblock, path: Path) -> Contents:
    if block.state == superblock.READY:
        return Contents("", block=block)
    state, release = superblock.STATE_NAMES[block.state], block.release or "an unknown kernel"
    name = f"a dump of {release} ({state})"
    if block.collected:
        return Contents(f"{name}, which was collected", "`pvdump prepare --again` takes it", block)
    return Contents(name, f"`pvdump collect {pasted(path)} OUT` gets it", block)


def _salvage(path: Path) -> str:
    return f"`pvdump collect --salvage {pasted(path)} OUT` gets the dump behind it"


def _is_empty(disk: TargetDisk, whole: bool, progress: Progress) -> bool:
    step = max(disk.size // SAMPLES, SAMPLE)
    samples = ((at, SAMPLE) for at in range(0, disk.size, step))
    for offset, size in ((0, MIB), (max(disk.size - MIB, 0), MIB), *samples):
        if not _is_zero(disk, offset, size):
            return False
    progress.expect(disk.size)
    for offset, size in _stored(disk) if whole else ():
        if not _is_zero(disk, offset, size):
            return False
        progress.advance(size)
    return True


def _is_zero(disk: TargetDisk, offset: int, size: int) -> bool:
    data = disk.read(offset, size)
    return data == ZEROS[: len(data)]


def _stored(disk: TargetDisk) -> Iterator[tuple[int, int]]:
    """Yield the parts of a disk that can hold data, in pieces of a MiB: all but a file's holes."""
    begin = 0
    while begin < disk.size:
        begin, end = _next_stored(disk, begin)
        while begin < end:
            size = min(end - begin, MIB)
            yield begin, size
            begin += size


def _next_stored(disk: TargetDisk, offset: int) -> tuple[int, int]:
    if disk.device:
        return offset, disk.size
    try:
        begin = os.lseek(disk.fd, offset, SEEK_DATA)
        return begin, os.lseek(disk.fd, begin, SEEK_HOLE)
    except OSError as error:
        # ENXIO: nothing but a hole from there on. Else the file system cannot tell.
        return disk.size if error.errno == errno.ENXIO else offset, disk.size


def _blkid(path: Path) -> str:
    """Ask libblkid what the disk is; "" when it is not installed or does not know."""
    program = shutil.which("blkid", path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if program is None:
        return ""
    command = [program, "--probe", "--output", "export", "--", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    found = dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)
    kind = found.get("TYPE") or found.get("PTTYPE")
    if not kind:
        return ""
    usage = found.get("USAGE") or ("partition table" if "PTTYPE" in found else "signature")
    label = f" labelled {found['LABEL']!r}" if "LABEL" in found else ""
    return f"{kind} ({usage}){label}"


def _signature(disk: TargetDisk) -> str:
    for offset, magic, name in SIGNATURES:
        if disk.read(offset % disk.size, len(magic)) == magic:
            return name
    return ""
