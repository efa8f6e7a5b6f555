"""The ELF and program headers of the vmcore on a target, read once and checked.

Used by collect, and by frames for a KDUMP file. The rules: the guest may rewrite the disk at any
moment, so the very bytes that were checked are used. What is missing of a dump is told to its
readers here: e_flags bit 0 (makedumpfile's DUMP_ELF_INCOMPLETE), and segments cut to what is there.
Source: elf(5); makedumpfile elf_info.h.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import NamedTuple

from pvfw import elf
from pvfw.errors import TargetRefused

from ..streams import pasted
from .disk import BadPlace, DiskError, TargetDisk

EHDR = struct.Struct(elf.EHDR)
PHDR = struct.Struct(elf.PHDR)
INCOMPLETE = 1
E_FLAGS = 48  # offset in the ELF header
P_FILESZ = 32  # offset in a program header


class Segment(NamedTuple):
    """A program header: kind, place in the vmcore, physical address, bytes there and in memory."""

    kind: int
    offset: int
    paddr: int
    filesz: int
    memsz: int


class Extent(NamedTuple):
    """Bytes of memory that are stored: physical addresses, and where in the vmcore they begin."""

    start: int
    end: int
    offset: int


class Header:
    """The headers of a vmcore.

    Args:
        disk: open for reading.
        offset: where the vmcore begins, bytes.
        size: bytes of it that are on the disk.

    Raises:
        TargetRefused: they are not whole, or not those of a vmcore.
        DiskError: they cannot be read.
    """

    def __init__(self, disk: TargetDisk, offset: int, size: int) -> None:
        self._path = disk.path
        try:
            self._raw = self._read(disk, offset, size)
        except BadPlace as error:
            raise DiskError(
                f"{error}: the headers of the vmcore, without which no file can be made of it; "
                f"`dd if={pasted(disk.path)} of=FILE bs=4096 conv=noerror,sync` copies all that "
                f"can be read of the disk"
            ) from error

    def _read(self, disk: TargetDisk, offset: int, size: int) -> bytearray:
        start = disk.read(offset, min(EHDR.size, size))
        if len(start) < EHDR.size:
            raise TargetRefused(f"{disk.path}: it ended before its headers: nothing to collect")
        length = _length(start, disk.path, offset)
        rest = disk.read(offset + len(start), min(length, size) - len(start))
        if len(start) + len(rest) < length:
            raise TargetRefused(
                f"{disk.path}: it ended before its headers were whole: nothing to collect"
            )
        return bytearray(start + rest)

    def __bytes__(self) -> bytes:
        return bytes(self._raw)

    def __len__(self) -> int:
        return len(self._raw)

    def extent(self) -> int:
        """Return the bytes of the vmcore by its own headers."""
        return max(len(self), *(each.offset + each.filesz for each in self.segments()))

    def cut(self, size: int, whole: int) -> None:
        """Cut the segments to the first `size` bytes of a vmcore that has `whole`.

        Raises:
            TargetRefused: a segment leaves the whole.
        """
        for number, (_, begin, _, filesz, _) in enumerate(self.segments()):
            if begin + filesz > whole:
                raise TargetRefused(
                    f"{self._path}: program header {number} names bytes up to "
                    f"{begin + filesz} of a dump that has {whole}"
                )
            at = EHDR.size + number * PHDR.size + P_FILESZ
            struct.pack_into("<Q", self._raw, at, min(filesz, max(size - begin, 0)))

    def mark_incomplete(self) -> None:
        """Tell the readers that something is missing."""
        (flags,) = struct.unpack_from("<I", self._raw, E_FLAGS)
        struct.pack_into("<I", self._raw, E_FLAGS, flags | INCOMPLETE)

    def extents(self) -> list[Extent]:
        """Return the stored memory in order; of bytes stored twice, those of the first segment."""
        found: list[Extent] = []
        end = 0
        loads = [each for each in self.segments() if each.kind == elf.PT_LOAD]
        for each in sorted(loads, key=lambda load: load.paddr):
            start, stop = max(each.paddr, end), each.paddr + each.filesz
            if start < stop:
                found.append(Extent(start, stop, each.offset + start - each.paddr))
                end = stop
        return found

    def segments(self) -> list[Segment]:
        """Return the program headers as they are now, in their order."""
        fields = (PHDR.unpack_from(self._raw, at) for at in range(EHDR.size, len(self), PHDR.size))
        return [
            Segment(kind, offset, paddr, filesz, memsz)
            for kind, _, offset, _, paddr, filesz, memsz, _ in fields
        ]


def _length(raw: bytes, path: Path, offset: int) -> int:
    """Check an ELF header. Returns the bytes of all headers."""
    fields = EHDR.unpack(raw)
    magic, phoff, phentsize, phnum = fields[0], fields[10], fields[14], fields[15]
    fits = magic == elf.MAGIC and phoff == EHDR.size and phentsize == PHDR.size
    if not fits or not 0 < phnum <= elf.PHNUM_MAX:
        raise TargetRefused(
            f"{path}: no vmcore where one should begin (byte {offset}): "
            f"it begins {raw[:16].hex(' ')}; has something else written to this disk?"
        )
    return phoff + phnum * PHDR.size
