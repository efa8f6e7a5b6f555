"""The guest's memory as the running kernel tells of it: /proc/iomem, and the bytes in /proc/kcore.

Used by arm, test, estimate and status. Both files are root's, and lockdown may close the second.
Addresses and sizes are physical, in bytes.
Source: Linux kernel/resource.c, fs/proc/kcore.c.
"""

from __future__ import annotations

import os
import re
import struct
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from pvfw import elf
from pvfw.errors import DumpError

IOMEM = Path("proc/iomem")
KCORE = Path("proc/kcore")
LINE = re.compile(r"( *)([0-9a-f]+)-([0-9a-f]+) : (.*)")
HEADERS_MAX = 1 << 20  # bytes of /proc/kcore's program headers


class MemoryUnknown(DumpError):
    """The kernel does not tell of its memory; the message says why."""


class Ranges(NamedTuple):
    """Ranges of memory, each its begin and end.

    Attributes:
        ram: all of the guest's.
        crash: what is reserved for the crash kernel.
    """

    ram: list[tuple[int, int]]
    crash: list[tuple[int, int]]

    def dumped(self) -> list[tuple[int, int]]:
        """Return the ranges that a dump is made of."""
        found = []
        for begin, end in self.ram:
            for first, last in sorted(self.crash):
                if first < end and last > begin:
                    found.append((begin, max(first, begin)))
                    begin = min(last, end)
            found.append((begin, end))
        return [(begin, end) for begin, end in found if begin < end]


def ranges(root: Path) -> Ranges:
    """Read the ranges of memory.

    Raises:
        MemoryUnknown: they cannot be read, or are hidden from this user.
    """
    path = root / IOMEM
    try:
        lines = path.read_text(errors="replace").splitlines()
    except OSError as error:
        raise MemoryUnknown(f"{path}: {error.strerror}") from error
    found = Ranges([], [])
    for match in filter(None, map(LINE.fullmatch, lines)):
        begin, end = int(match[2], 16), int(match[3], 16) + 1
        if match[4] == "System RAM" and not match[1]:
            found.ram.append((begin, end))
        elif match[4] == "Crash kernel":
            found.crash.append((begin, end))
    if not any(end > 1 for _, end in found.ram):
        raise MemoryUnknown(f"{path} shows no addresses: root sees them")
    return found


class Kcore:
    """The memory of the running kernel, by physical addresses.

    Args:
        root: of the system.

    Raises:
        MemoryUnknown: there is no /proc/kcore, or it cannot be read.
    """

    def __init__(self, root: Path) -> None:
        self.path = root / KCORE
        try:
            self._fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise MemoryUnknown(f"{self.path}: {error.strerror}") from error
        try:
            self._parts = self._headers()
        except (OSError, struct.error, ValueError) as error:
            os.close(self._fd)
            raise MemoryUnknown(f"{self.path}: it cannot be read: {error}") from error

    def _headers(self) -> list[tuple[int, int, int]]:
        """Return begin, end and place in the file of each part of RAM."""
        head = os.pread(self._fd, elf.EHDR_SIZE, 0)
        headers = elf.program_headers(head)
        if headers is None:
            raise ValueError("no ELF core file")
        at, size, count = headers
        if size != elf.PHDR_SIZE or size * count > HEADERS_MAX:
            raise ValueError(f"{count} program headers of {size} bytes")
        raw = os.pread(self._fd, size * count, at)
        found = []
        for number in range(count):
            kind, _, offset, _, address, _, length, _ = struct.unpack_from(
                elf.PHDR, raw, number * size
            )
            # What is no RAM has the last address of all.
            if kind == elf.PT_LOAD:
                found.append((address, address + length, offset))
        return found

    def read(self, address: int, size: int) -> bytes:
        """Read `size` bytes at a physical address.

        Raises:
            MemoryUnknown: they are not all there, or cannot be read.
        """
        for begin, end, offset in self._parts:
            if begin <= address and address + size <= end:
                try:
                    found = os.pread(self._fd, size, offset + address - begin)
                except OSError as error:
                    raise MemoryUnknown(f"{self.path}: {error.strerror}") from error
                if len(found) == size:
                    return found
        raise MemoryUnknown(f"{self.path} has no {size} bytes at {address:#x}")

    def __enter__(self) -> Kcore:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self._fd)
