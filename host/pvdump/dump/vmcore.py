"""The ELF and program headers of the vmcore on a target, read once and checked.

Used by collect. The rules: the guest may rewrite the disk at any moment, so the very bytes that
were checked go into the file. What is missing of a dump is told to its readers here: e_flags bit 0
(makedumpfile's DUMP_ELF_INCOMPLETE), and segments cut to what is there.
Source: elf(5); makedumpfile elf_info.h.
"""

from __future__ import annotations

import struct
from pathlib import Path

from pvfw import elf
from pvfw.errors import TargetRefused

from .disk import TargetDisk

EHDR = struct.Struct(elf.EHDR)
PHDR = struct.Struct(elf.PHDR)
INCOMPLETE = 1
E_FLAGS = 48  # offset in the ELF header
P_FILESZ = 32  # offset in a program header


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
        start = disk.read(offset, min(EHDR.size, size))
        if len(start) < EHDR.size:
            raise TargetRefused(f"{disk.path}: it ended before its headers: nothing to collect")
        length = _length(start, disk.path, offset)
        rest = disk.read(offset + len(start), min(length, size) - len(start))
        self._raw = bytearray(start + rest)
        if len(self._raw) < length:
            raise TargetRefused(
                f"{disk.path}: it ended before its headers were whole: nothing to collect"
            )

    def __bytes__(self) -> bytes:
        return bytes(self._raw)

    def __len__(self) -> int:
        return len(self._raw)

    def extent(self) -> int:
        """Return the bytes of the vmcore by its own headers."""
        return max(len(self), *(begin + size for _, begin, size in self._segments()))

    def cut(self, size: int, whole: int) -> None:
        """Cut the segments to the first `size` bytes of a vmcore that has `whole`.

        Raises:
            TargetRefused: a segment leaves the whole.
        """
        for number, (at, begin, filesz) in enumerate(self._segments()):
            if begin + filesz > whole:
                raise TargetRefused(
                    f"{self._path}: program header {number} names bytes up to "
                    f"{begin + filesz} of a dump that has {whole}"
                )
            struct.pack_into("<Q", self._raw, at + P_FILESZ, min(filesz, max(size - begin, 0)))

    def mark_incomplete(self) -> None:
        """Tell the readers that something is missing."""
        (flags,) = struct.unpack_from("<I", self._raw, E_FLAGS)
        struct.pack_into("<I", self._raw, E_FLAGS, flags | INCOMPLETE)

    def _segments(self) -> list[tuple[int, int, int]]:
        """Return of each: the place of its program header, where it begins, its size."""
        places = range(EHDR.size, len(self._raw), PHDR.size)
        headers = [(at, PHDR.unpack_from(self._raw, at)) for at in places]
        return [(at, header[2], header[5]) for at, header in headers]


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
