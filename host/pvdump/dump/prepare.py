"""`pvdump prepare`: make a disk or file a dump target by giving it a superblock.

Called by the command line. The rule: only what is empty, or prepared already and without a dump, is
written unasked; anything else needs --force, after the person was told what was seen. Only the
first MiB, which the superblock owns, is ever written.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import uuid
from dataclasses import dataclass
from pathlib import Path

from pvfw import superblock
from pvfw.errors import TargetRefused

from . import disk as disks
from .disk import MIB, Disk, DiskError

# Between its first and last MiB a disk is looked at in so many places, of so many bytes.
SAMPLES = 1024
SAMPLE = 4096
SMALLEST = superblock.DATA_OFFSET + MIB

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
    (65600, b"_BHRfS_M", "a btrfs file system"),
    (-512, b"EFI PART", "a GPT partition table (its backup)"),
    (-512, b"conectix", "a VHD image (attach it, and prepare the disk the guest sees)"),
    (510, b"\x55\xaa", "a partition table or boot sector"),
)


@dataclass(frozen=True)
class Prepared:
    """size: bytes of the target; room: of them, for the vmcore; lost: what was there, or empty."""

    uuid: uuid.UUID
    size: int
    room: int
    lost: str


def prepare(path: Path, size: int | None = None, force: bool = False) -> Prepared:
    """Write a superblock in state ready.

    path: block device or file.
    size: bytes; makes the file, with all its blocks, when it is not there.
    force: also over something else.
    Raises DiskError, TargetRefused.
    """
    if not disks.exists(path):
        if size is None:
            raise DiskError(f"{path} does not exist; with --size it is made as a file")
        _make(path, size)
    elif size is not None and size != (there := _size(path)):
        raise DiskError(f"{path} exists, with {there} bytes; --size is for a file to be made")
    with disks.writing(path) as disk:
        usable = disk.size // 4096 * 4096
        if usable < SMALLEST:
            raise DiskError(f"{path} has {disk.size} bytes; a target needs {SMALLEST} at least")
        lost = contents(disk)
        if lost and not force:
            raise TargetRefused(
                f"{path} holds {lost}; nothing was changed. "
                "If it is not needed any more, say --force"
            )
        block = superblock.Superblock(uuid.uuid4().bytes, usable)
        # The superblock goes last: until then the first MiB is nobody's, not half of each.
        disk.write(
            superblock.SUPERBLOCK_SIZE, bytes(superblock.DATA_OFFSET - superblock.SUPERBLOCK_SIZE)
        )
        disk.write(0, block.encode())
        return Prepared(uuid.UUID(bytes=block.uuid), usable, usable - superblock.DATA_OFFSET, lost)


def contents(disk: Disk) -> str:
    """What is on the disk that a person may want to keep; empty when nothing."""
    head = disk.read(0, MIB)
    if head.startswith(superblock.MAGIC):
        try:
            block = superblock.decode(head)
        except TargetRefused:
            return "a damaged pvdump superblock"
        if block.state == superblock.READY:
            return ""
        state, release = superblock.STATE_NAMES[block.state], block.release or "an unknown kernel"
        return f"a dump of {release} ({state}), which `pvdump collect` gets"
    tail = disk.read(max(disk.size - MIB, 0), MIB)
    step = max(disk.size // SAMPLES, SAMPLE)
    between = (disk.read(at, SAMPLE) for at in range(0, disk.size, step))
    if not any(head) and not any(tail) and not any(map(any, between)):
        return ""
    return _blkid(disk.path) or _signature(disk) or "data of an unknown kind"


def _blkid(path: Path) -> str:
    """What libblkid takes the disk for; empty when it is not installed or does not know."""
    program = shutil.which("blkid", path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if program is None:
        return ""
    command = [program, "--probe", "--output", "export", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    found = dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)
    kind = found.get("TYPE") or found.get("PTTYPE")
    if not kind:
        return ""
    usage = found.get("USAGE") or ("partition table" if "PTTYPE" in found else "signature")
    label = f" labelled {found['LABEL']!r}" if "LABEL" in found else ""
    return f"{kind} ({usage}){label}"


def _signature(disk: Disk) -> str:
    for offset, magic, name in SIGNATURES:
        if disk.read(offset % disk.size, len(magic)) == magic:
            return name
    return ""


def _size(path: Path) -> int:
    with disks.reading(path) as disk:
        return disk.size


def _make(path: Path, size: int) -> None:
    """A file with its blocks allocated: a crash is no time to run out of space."""
    if size < SMALLEST:
        raise DiskError(f"--size {size}: a target needs {SMALLEST} bytes at least")
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise DiskError(f"{path}: {error.strerror}") from error
    try:
        os.posix_fallocate(fd, 0, size)
    except OSError as error:
        path.unlink()
        raise DiskError(f"{path}: {size} bytes: {error.strerror}") from error
    finally:
        os.close(fd)
