"""The layout of an ELF vmcore made of a stream: headers, notes, then the frames of RAM in order.

Used by collect. The rule: each frame is in the file once, whatever ranges name it.
"""

from __future__ import annotations

from bisect import bisect_right
from pathlib import Path

from pvfw import chunks, elf
from pvfw.errors import TargetRefused

from .disk import PAGE
from .frames import merged, touched
from .vmcore import E_FLAGS, INCOMPLETE


class Layout:
    """The place of everything in an ELF vmcore.

    Args:
        path: of the target, for messages.
        memory: (physical address, bytes, virtual address or 0) of each range of RAM.
        notes: as in a PT_NOTE.

    Attributes:
        frames: of RAM, (first, end) in order.
        end: bytes of the file.

    Raises:
        TargetRefused: it would have too many program headers.
    """

    def __init__(self, path: Path, memory: list[tuple[int, int, int]], notes: bytes) -> None:
        if len(memory) >= elf.PHNUM_MAX:
            raise TargetRefused(
                f"{path}: the dump has {len(memory)} ranges of memory, an ELF vmcore takes "
                f"{elf.PHNUM_MAX - 1}: use --format kdump"
            )
        self._memory = memory
        self._raw = notes
        self._notes = elf.EHDR_SIZE + (1 + len(memory)) * elf.PHDR_SIZE
        data = chunks.padded(self._notes + len(notes))
        self.frames = merged(touched((p, p + size) for p, size, _ in memory))
        self._firsts = [first for first, _ in self.frames]
        self._places = []
        self.end = data
        for first, end in self.frames:
            self._places.append(self.end)
            self.end += (end - first) * PAGE

    def place(self, pfn: int, count: int = 1) -> int | None:
        """Return where a frame's bytes are in the file; None where not all of `count` are RAM."""
        number = bisect_right(self._firsts, pfn) - 1
        if number < 0 or pfn + count > self.frames[number][1]:
            return None
        return self._places[number] + (pfn - self._firsts[number]) * PAGE

    def header(self, incomplete: bool) -> bytes:
        """Return the headers and the notes."""
        raw = bytearray(elf.core_header(1 + len(self._memory)))
        if incomplete:
            raw[E_FLAGS] |= INCOMPLETE
        raw += elf.program_header(elf.PT_NOTE, self._notes, 0, 0, len(self._raw))
        for paddr, size, vaddr in self._memory:
            at = (self.place(paddr // PAGE) or 0) + paddr % PAGE
            raw += elf.program_header(elf.PT_LOAD, at, vaddr, paddr, size)
        return bytes(raw + self._raw)
