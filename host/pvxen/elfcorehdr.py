"""The memory of a crashed Linux as kexec describes it to the crash kernel: elfcorehdr and notes.

Used by `build.py run` and by tests of the image. The rule: Layout says where everything is; the
crashed kernel's own memory begins at 1 MiB and ends below the header.
Source: Linux kernel/crash_core.c; kexec-tools kexec/crashdump-elf.c.
"""

from __future__ import annotations

import random
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .machine import Machine

MIB = 1 << 20
KERNEL_TEXT = 0xFFFFFFFF81000000
DIRECT_MAP = 0xFFFF888000000000
TEXT_SIZE = MIB // 2
LOW_START, LOW_SIZE = 0x1000, 0x9EC00  # what firmware leaves of the first 640 KiB
RELEASE = "6.1.0-embedded"
PT_LOAD, PT_NOTE = 1, 4
NOTES_AT, BACKUP_AT = 0x1000, 0x10000  # from the header on


@dataclass(frozen=True)
class Layout:
    """Where a crashed guest has what.

    Attributes:
        size: bytes of RAM.
        header: physical address of the ELF header; its notes and the backup of the low memory
            follow it.
        region: (start, end) of what the crash kernel may use, behind the backup.
    """

    size: int
    header: int
    region: tuple[int, int]

    def options(self, cmdline: str) -> dict[str, object]:
        """Options of an embedded guest whose crash kernel has this command line, as kexec does."""
        line = f"{cmdline} elfcorehdr=0x{self.header:x}".encode()
        return {"size": self.size, "door": "bzimage", "region": self.region, "cmdline": line}


SMALL = Layout(0x700000, 0x300000, (0x3B0000, 0x680000))


def layout(size: int) -> Layout:
    """A layout for a guest of `size` bytes of RAM, of which the last 8 MiB are for the crash."""
    header = size - 8 * MIB
    return Layout(size, header, (header + MIB, size - MIB))


def leave(machine: Machine, layout: Layout) -> None:
    """Fill the memory of a guest as a crashed kernel would have, with its description.

    Raises: ValueError when the machine has no RAM at some place of the layout.
    """
    ram, at = machine.ram, layout.header
    if len(ram) < layout.size:
        raise ValueError(f"{len(ram)} bytes of RAM; the layout has {layout.size}")
    noise = random.Random(7).randbytes(MIB)
    for start in range(MIB, at, MIB):
        part = noise[: at - start]
        ram[start : start + len(part)] = part
        struct.pack_into("<Q", ram, start, start)
    ram[at + BACKUP_AT : at + BACKUP_AT + 16] = b"low memory is me"
    info = f"OSRELEASE={RELEASE}\nPAGESIZE=4096\n".encode()
    note = struct.pack("<III", 11, len(info), 0) + b"VMCOREINFO\0\0" + info
    note += bytes(-len(note) % 4)
    ram[at + NOTES_AT : at + NOTES_AT + len(note)] = note
    headers = [
        (PT_NOTE, 0, 0, at + NOTES_AT, len(note)),
        (PT_LOAD, KERNEL_TEXT, MIB, MIB, TEXT_SIZE),
        (PT_LOAD, DIRECT_MAP + LOW_START, LOW_START, at + BACKUP_AT, LOW_SIZE),
        (PT_LOAD, DIRECT_MAP + MIB, MIB, MIB, at - MIB),
    ]
    raw = struct.pack(
        "<4sBBBB8sHHIQQQIHHHHHH",
        *(b"\x7fELF", 2, 1, 1, 0, bytes(8), 4, 62, 1, 0, 64, 0, 0, 64, 56, len(headers), 0, 0, 0),
    )
    for kind, vaddr, paddr, offset, size in headers:
        raw += struct.pack("<IIQQQQQQ", kind, 0, offset, vaddr, paddr, size, size, 0)
    ram[at : at + len(raw)] = raw
