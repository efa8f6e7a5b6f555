"""A vmcore that is a file: its headers, its notes and, page by page, the memory that it holds.

Used by the report: for the registers of every dump, and for the kernel's log where there is no
drgn. A KDUMP file, version 6, or an ELF vmcore. The rule: a guest wrote all that is in it, so each
offset and size is checked before it is followed; what a page needs to be unpacked is looked for
when the first such page is read.
Source: makedumpfile IMPLEMENTATION and diskdump_mod.h; elf(5).
"""

from __future__ import annotations

import os
import stat
import zlib
from array import array
from bisect import bisect_right
from functools import lru_cache
from pathlib import Path
from typing import Callable, NamedTuple, Optional

from pvfw import elf
from pvfw.errors import CoreError, DumpError
from pvfw.vmcoreinfo import Vmcoreinfo
from xenpv.text import printable

from .. import pip
from ..dump.compression import ZLIB, ZSTD, unpacker
from ..dump.disk import PAGE
from ..dump.kdump import DESCRIPTOR, HEADER, INCOMPLETE, SUB_HEADER, VERSION
from ..dump.notes import SIZE_MAX, Notes
from ..dump.vmcore import E_FLAGS, PHDR
from ..streams import pasted
from . import registers
from .registers import Registers

KDUMP = b"KDUMP   "
MAPNR_MAX = 1 << 40  # frames of 52 bits of physical address
BLOCK = PAGE  # bytes of a bitmap whose bits are counted at once
PAGES_KEPT = 256
# What a file that is none of these may be, and what to do with it.
OTHERS = (
    (b"makedumpfile\0", "a flattened dump: `makedumpfile -R NEW < {}` makes a file to be read"),
    (b"age-encryption.org/", "encrypted: `pvdump collect --identity KEY {} NEW` decrypts it"),
    (b"PVDUMP", "a dump target: `pvdump collect {} NEW` makes a vmcore of it"),
)


class Load(NamedTuple):
    """Memory in an ELF vmcore: physical addresses, and where in the file it begins."""

    start: int
    end: int
    offset: int


class CoreFile:
    """An open vmcore.

    Args:
        path: of it.

    Attributes:
        notes: of it.
        cpu: number of the CPU that crashed, None where the file does not say it.
        incomplete: whether it says that something is missing.

    Raises:
        DumpError: it is no vmcore that can be read, and what to do then.
        OSError: the file cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.cpu: Optional[int] = None
        self.incomplete = False
        # Nobody need be writing to what turns out to be a pipe.
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            if not stat.S_ISREG(os.fstat(self._fd).st_mode):
                raise DumpError(f"{path}: no file, so no vmcore")
            start = self._at(0, PAGE)
            if start.startswith(KDUMP):
                self._read = self._open_kdump(start)
            elif start.startswith(elf.MAGIC):
                self._read = self._open_elf(start)
            else:
                raise DumpError(f"{path}: {_other(start, path)}")
        except BaseException:
            os.close(self._fd)
            raise

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)

    def __enter__(self) -> CoreFile:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def read(self, paddr: int, size: int) -> bytes:
        """Read memory at a physical address.

        Raises:
            CoreError: the dump does not have it.
            DumpError: this Python cannot unpack it.
        """
        data = b""
        while len(data) < size:
            at = paddr + len(data)
            page = self._read(at // PAGE)
            data += page[at % PAGE : at % PAGE + size - len(data)]
        return data

    def vmcoreinfo(self) -> Vmcoreinfo:
        """Return the kernel's own description; it is empty where the dump has none."""
        return Vmcoreinfo(lambda key: printable(self.notes.text(key)))

    def registers(self) -> list[Registers]:
        """Return the registers of the CPUs, in the order of the notes."""
        raw = self.notes.raw
        return [
            registers.decode(raw[at : at + registers.SIZE])
            for at, size in self.notes.prstatus
            if size >= registers.SIZE
        ]

    def _at(self, offset: int, size: int) -> bytes:
        """Read the file. Returns fewer bytes at its end."""
        try:
            return os.pread(self._fd, size, offset) if 0 <= offset < 1 << 62 else b""
        except OSError as error:
            raise DumpError(f"{self.path}: {error.strerror}") from error

    def _whole(self, offset: int, size: int, what: str) -> bytes:
        data = self._at(offset, size)
        if len(data) < size:
            raise DumpError(f"{self.path}: damaged or cut off: it has no whole {what}")
        return data

    # KDUMP

    def _open_kdump(self, start: bytes) -> Callable[[int], bytes]:
        raw = start.ljust(PAGE, b"\0")
        fields = HEADER.unpack_from(raw)
        version, status, block, sub, bitmaps = fields[1], *fields[10:14]
        if version != VERSION or block != PAGE:
            raise DumpError(
                f"{self.path}: a KDUMP file of version {version} with blocks of {block} bytes; "
                f"version {VERSION} with {PAGE} is read"
            )
        self.incomplete = bool(status & INCOMPLETE)
        self.cpu = fields[-2]
        inner = SUB_HEADER.unpack(self._whole(PAGE, SUB_HEADER.size, "header"))
        at, size = inner[7:9]
        self.notes = Notes(self._whole(at, min(size, SIZE_MAX), "notes") if size else b"")
        mapnr, half = inner[-1], bitmaps // 2 * PAGE
        bitmap = (1 + sub) * PAGE + half
        if not 0 < mapnr <= min(MAPNR_MAX, 8 * half) or sub < 1:
            raise DumpError(f"{self.path}: damaged: a bitmap of {half} bytes for {mapnr} frames")
        # Descriptors before each block of the bitmap.
        ranks, rank = array("Q"), 0
        for place in range(bitmap, bitmap + half, BLOCK):
            ranks.append(rank)
            rank += _ones(self._whole(place, BLOCK, "bitmap"))

        @lru_cache(maxsize=PAGES_KEPT)
        def page(pfn: int) -> bytes:
            if pfn >= mapnr:
                raise CoreError(f"the memory at {pfn * PAGE:#x} is not in the dump")
            number, bit = divmod(pfn, 8 * BLOCK)
            bits = self._whole(bitmap + number * BLOCK, BLOCK, "bitmap")
            if not bits[bit // 8] >> bit % 8 & 1:
                raise CoreError(f"the memory at {pfn * PAGE:#x} is not in the dump")
            before = _ones(bits[: bit // 8]) + _ones(bytes([bits[bit // 8] & (1 << bit % 8) - 1]))
            place = bitmap + half + (ranks[number] + before) * DESCRIPTOR.size
            offset, size, flags, _ = DESCRIPTOR.unpack(
                self._whole(place, DESCRIPTOR.size, "page descriptors")
            )
            return self._unpacked(pfn, self._at(offset, min(size, 2 * PAGE)), flags)

        return page

    def _unpacked(self, pfn: int, data: bytes, flags: int) -> bytes:
        try:
            if flags == ZSTD:
                page = self._unzstd(data)
            elif flags == ZLIB:
                page = zlib.decompressobj().decompress(data, PAGE + 1)
            elif flags == 0:
                page = data
            else:
                raise DumpError(
                    f"{self.path}: its pages are compressed by LZO or snappy: drgn reads them, "
                    f"`{pip.install('drgn')}`"
                )
        except (ValueError, zlib.error) as error:
            raise CoreError(f"the page of frame {pfn:#x} is damaged: {error}") from error
        if len(page) != PAGE:
            raise CoreError(f"the page of frame {pfn:#x} is damaged: {len(page)} bytes")
        return page

    def _unzstd(self, data: bytes) -> bytes:
        try:
            unpack = unpacker()
        except DumpError:
            raise DumpError(
                f"{self.path}: its pages are compressed by zstd, which needs the Python module "
                f"zstandard or drgn: install python3-zstandard, or `{pip.install('drgn')}`"
            ) from None
        return unpack(data)

    # ELF

    def _open_elf(self, start: bytes) -> Callable[[int], bytes]:
        places = elf.program_headers(start) if len(start) >= elf.EHDR_SIZE else None
        if places is None or places[1] != PHDR.size or not 0 < places[2] <= elf.PHNUM_MAX:
            raise DumpError(f"{self.path}: no vmcore of x86-64, or a damaged one")
        self.incomplete = bool(start[E_FLAGS] & 1)
        offset, size, count = places
        raw, loads, notes = self._whole(offset, size * count, "program headers"), [], b""
        for kind, _, at, _, paddr, filesz, _, _ in PHDR.iter_unpack(raw):
            if kind == elf.PT_NOTE and len(notes) < SIZE_MAX:
                notes += self._at(at, min(filesz, SIZE_MAX - len(notes)))
            elif kind == elf.PT_LOAD:
                loads.append(Load(paddr, paddr + filesz, at))
        self.notes = Notes(notes)
        loads.sort()
        starts = [load.start for load in loads]

        @lru_cache(maxsize=PAGES_KEPT)
        def page(pfn: int) -> bytes:
            begin = pfn * PAGE
            for load in reversed(loads[: bisect_right(starts, begin + PAGE - 1)]):
                if load.start <= begin and begin + PAGE <= load.end:
                    data = self._at(load.offset + begin - load.start, PAGE)
                    if len(data) == PAGE:
                        return data
            raise CoreError(f"the memory at {begin:#x} is not in the dump")

        return page


def _ones(data: bytes) -> int:
    """Count the bits that are set."""
    return bin(int.from_bytes(data, "little")).count("1")


def _other(start: bytes, path: Path) -> str:
    """Say what a file that is no vmcore may be."""
    for begin, text in OTHERS:
        if start.startswith(begin):
            return text.format(pasted(path))
    return f"no vmcore: it begins {start[:8].hex(' ') or 'with nothing'}"
