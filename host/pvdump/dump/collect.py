"""`pvdump collect`: get the vmcore off a dump target, as a file that the usual readers open.

Called by the command line and by the demo. The rules: the target is only read; the result appears
under its name whole and in one step, or not at all, and never in place of another file. What is
missing of a partial dump is told to the readers in the ELF header: e_flags bit 0 (makedumpfile's
DUMP_ELF_INCOMPLETE), and segments cut to what is there.
"""

from __future__ import annotations

import errno
import os
import struct
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pvfw import superblock
from pvfw.elf import PHNUM_MAX
from pvfw.errors import TargetRefused

from . import disk as disks
from .disk import MIB, Disk, DiskError

BLOCK = MIB
ZEROS = bytes(65536)  # a hole in the file for each such piece
ELF_INCOMPLETE = 1
EHDR = struct.Struct("<4sBBBB8sHHIQQQIHHHHHH")
PHDR = struct.Struct("<IIQQQQQQ")
E_FLAGS = 48  # offset in the ELF header
P_FILESZ = 32  # offset in a program header

Progress = Callable[[int], None]


@dataclass(frozen=True)
class Collected:
    """size: bytes of the vmcore that are there; missing: of what the whole would have, bytes."""

    size: int
    missing: int
    reason: str


def collect(path: Path, out: Path, progress: Progress = lambda done: None) -> Collected:
    """Copy the dump from the target at `path` to the new file `out`.

    progress: called with the number of bytes each step has copied.
    Raises DiskError, TargetRefused.
    """
    _refuse_existing(out)
    with disks.reading(path) as disk:
        block = disk.superblock()
        if block.state == superblock.READY:
            raise TargetRefused(f"{path} holds no dump: it is ready for one")
        size, reason = _available(disk, block)
        header = _header(disk, block, size, incomplete=bool(reason))
        fd, scratch = _scratch(out)
        try:
            _write(fd, header, 0)
            progress(len(header))
            _copy(disk, block.data_offset, len(header), size, fd, progress)
            os.fsync(fd)
            _publish(scratch, out)
        except OSError as error:
            raise DiskError(f"{out}: {error.strerror}") from error
        finally:
            os.close(fd)
            scratch.unlink(missing_ok=True)
    return Collected(size, block.dump_size - size, reason)


def _refuse_existing(out: Path) -> None:
    if disks.exists(out) or out.is_symlink():
        raise DiskError(f"{out} exists already; a dump never goes over another file")
    if not out.parent.is_dir():
        raise DiskError(f"{out}: there is no folder {out.parent}")


def _available(disk: Disk, block: superblock.Superblock) -> tuple[int, str]:
    """How many bytes of the vmcore are on the disk, and why it is not all of them."""
    if block.state == superblock.COMPLETE:
        size, reason = block.dump_size, ""
    elif block.state == superblock.PARTIAL:
        size, reason = block.written, block.reason or "no reason recorded"
    else:
        size, reason = block.written, "the guest is still writing, or was ended while it wrote"
    there = max(disk.size - block.data_offset, 0)
    if there < size:
        size, reason = there, f"the target ends at byte {disk.size}; it was larger once"
    return size, reason


def _header(disk: Disk, block: superblock.Superblock, size: int, incomplete: bool) -> bytes:
    """The vmcore's ELF and program headers, changed to say what is missing when something is."""
    offset, whole = block.data_offset, block.dump_size
    ehdr = disk.read(offset, min(EHDR.size, size))
    if len(ehdr) < EHDR.size:
        raise TargetRefused(f"{disk.path}: it ended before its headers: nothing to collect")
    fields = EHDR.unpack(ehdr)
    magic, phoff, phentsize, phnum = fields[0], fields[10], fields[14], fields[15]
    if magic != b"\x7fELF" or phentsize != PHDR.size or phoff != EHDR.size or phnum > PHNUM_MAX:
        raise TargetRefused(
            f"{disk.path}: no vmcore where the superblock has it (byte {offset}): "
            f"it begins {ehdr[:16].hex(' ')}; has something else written to this disk?"
        )
    length = phoff + phnum * PHDR.size
    header = bytearray(disk.read(offset, min(length, size)))
    if len(header) < length:
        raise TargetRefused(
            f"{disk.path}: it ended before its headers were whole: nothing to collect"
        )
    if incomplete:
        struct.pack_into("<I", header, E_FLAGS, fields[12] | ELF_INCOMPLETE)
    for at in range(phoff, length, PHDR.size):
        begin, filesz = PHDR.unpack_from(header, at)[2], PHDR.unpack_from(header, at)[5]
        if begin + filesz > whole:
            raise TargetRefused(
                f"{disk.path}: program header {(at - phoff) // PHDR.size} names bytes up to "
                f"{begin + filesz} of a dump that has {whole}"
            )
        struct.pack_into("<Q", header, at + P_FILESZ, min(filesz, max(size - begin, 0)))
    return bytes(header)


def _copy(disk: Disk, offset: int, begin: int, end: int, out: int, progress: Progress) -> None:
    """Bytes begin to end of the vmcore; zeros become holes of the file."""
    at = begin
    while at < end:
        # To the next multiple, so that holes lie where the file system can have them.
        data = disk.read(offset + at, min(BLOCK - at % BLOCK, end - at))
        if not data:
            raise DiskError(f"{disk.path} ends at byte {offset + at}, before the dump does")
        for start in range(0, len(data), len(ZEROS)):
            piece = data[start : start + len(ZEROS)]
            if piece != ZEROS[: len(piece)]:
                _write(out, piece, at + start)
        at += len(data)
        progress(len(data))
    os.ftruncate(out, end)


def _write(fd: int, data: bytes, offset: int) -> None:
    while data:
        done = os.pwrite(fd, data, offset)
        data, offset = data[done:], offset + done


def _scratch(out: Path) -> tuple[int, Path]:
    """A new file beside `out`, readable by its owner alone: a dump holds keys and passwords."""
    try:
        fd, name = tempfile.mkstemp(dir=out.parent, prefix=f".{out.name}.")
    except OSError as error:
        raise DiskError(f"{out.parent}: {error.strerror}") from error
    return fd, Path(name)


def _publish(scratch: Path, out: Path) -> None:
    """Give the finished file its name. A link fails when the name has been taken meanwhile."""
    try:
        os.link(scratch, out)
    except FileExistsError as error:
        raise DiskError(f"{out} appeared meanwhile; it was not touched") from error
    except OSError as error:
        # FAT and the like have no links.
        if error.errno not in (errno.EPERM, errno.EOPNOTSUPP):
            raise
        _refuse_existing(out)
        scratch.rename(out)
