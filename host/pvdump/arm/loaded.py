"""What stands in the memory of the crash kernel: image, configuration, list of the guest's memory.

Used by test and status. The region is read through /proc/kcore, so this needs root, and no lockdown
of that file. The rule: what is compared is what the image will find; where the kernel put it is
found by its content, at whole pages.
Source: Linux arch/x86/kernel/kexec-bzimage64.c, crash.c; kexec-tools.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from pathlib import Path

from pvfw import config, elf

from .memory import Kcore, MemoryUnknown, Ranges, ranges

PAGE = 4096
PIECE = 1 << 20
SETUP = 0x1F1  # of a bzImage: sectors in front of its body, but for the first
SECTOR = 512
# Linux reserves it and kexec_file_load leaves it out.
LOW = 1 << 20
CORE_MAX = 8 << 20  # bytes of the list of the guest's memory


class NotThere(MemoryUnknown):
    """The region does not have what was loaded; the message says what is missing."""


class Region:
    """The crash kernel's memory.

    Args:
        root: of the system.

    Raises:
        MemoryUnknown: it cannot be read.
    """

    def __init__(self, root: Path) -> None:
        self.ranges: Ranges = ranges(root)
        if not self.ranges.crash:
            raise MemoryUnknown("no memory is reserved for a crash kernel")
        self._parts = []
        with Kcore(root) as kcore:
            for begin, end in self.ranges.crash:
                pieces = range(begin, end, PIECE)
                content = (kcore.read(at, min(PIECE, end - at)) for at in pieces)
                self._parts.append((begin, b"".join(content)))

    def check_image(self, image: bytes) -> None:
        """Compare the image. Raises NotThere."""
        body = image[(image[SETUP] + 1) * SECTOR :]
        self._find("the image", body[:64], lambda found: found[: len(body)] == body)

    def check_configuration(self, raw: bytes) -> None:
        """Compare the configuration. Raises NotThere."""
        self._find("the configuration", config.MAGIC, lambda found: found[: len(raw)] == raw)

    def check_memory(self) -> None:
        """Look whether the list of the guest's memory has all of it. Raises NotThere."""
        wanted = [(max(begin, LOW), end) for begin, end in self.ranges.dumped() if end > LOW]
        self._find(
            "the list of all the guest's memory",
            elf.MAGIC,
            lambda found: _covers(list(_loads(found[:CORE_MAX])), wanted),
        )

    def _find(self, what: str, begin: bytes, right: Callable[[bytes], bool]) -> None:
        """Find something that begins at a page with some bytes, and is right."""
        for _, content in self._parts:
            at = content.find(begin)
            while at >= 0:
                if at % PAGE == 0 and right(content[at:]):
                    return
                at = content.find(begin, at + 1)
        raise NotThere(f"{what} is not in the memory of the crash kernel as it was loaded")


def _loads(raw: bytes) -> Iterator[tuple[int, int]]:
    """Give the ranges of memory that an ELF core header lists."""
    headers = elf.program_headers(raw) if len(raw) >= elf.EHDR_SIZE else None
    if headers is None:
        return
    at, size, count = headers
    if size != elf.PHDR_SIZE or at + count * size > len(raw):
        return
    for number in range(count):
        header = struct.unpack_from(elf.PHDR, raw, at + number * size)
        if header[0] == elf.PT_LOAD:
            yield header[4], header[4] + header[6]


def _covers(listed: list[tuple[int, int]], wanted: list[tuple[int, int]]) -> bool:
    """Tell whether ranges cover all of others, but for parts of pages at their ends."""
    listed = sorted(listed)
    for begin, end in wanted:
        at = -(-begin // PAGE) * PAGE
        for first, last in listed:
            if first <= at < last:
                at = last
        if at < end // PAGE * PAGE:
            return False
    return True
