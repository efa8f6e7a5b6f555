"""The memory of a guest whose Linux has crashed, with its description for the crash kernel.

Used by `build.py run` and by tests of the image. The rule: Layout says where everything is; the
crashed kernel's own memory begins at 1 MiB and ends below the header.
"""

from __future__ import annotations

import random
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from . import elfcorehdr
from .elfcorehdr import DIRECT_MAP, KERNEL_TEXT

if TYPE_CHECKING:
    from .machine import Machine

MIB = 1 << 20
TEXT_SIZE = MIB // 2
LOW_START, LOW_SIZE = 0x1000, 0x9EC00  # what firmware leaves of the first 640 KiB
RELEASE = "6.1.0-embedded"
NOTES_AT, BACKUP_AT = 0x1000, 0x10000  # from the header on


@dataclass(frozen=True)
class Layout:
    """The places in a crashed guest's memory.

    Attributes:
        size: bytes of RAM.
        header: physical address of the ELF header; its notes and the backup of the low memory
            follow it.
        region: (start, end) of the memory that the crash kernel may use, behind the backup.
    """

    size: int
    header: int
    region: tuple[int, int]

    def options(self, cmdline: str) -> dict[str, object]:
        """Return the options of a guest that starts its crash kernel with a command line."""
        line = f"{cmdline} elfcorehdr=0x{self.header:x}".encode()  # as kexec adds it
        return {"size": self.size, "door": "bzimage", "region": self.region, "cmdline": line}


SMALL = Layout(0x700000, 0x300000, (0x3B0000, 0x680000))


def layout(size: int) -> Layout:
    """Return a layout for `size` bytes of RAM, all but 8 MiB for the crashed kernel."""
    header = size - 8 * MIB
    return Layout(size, header, (header + MIB, size - MIB))


def leave(machine: Machine, layout: Layout) -> None:
    """Fill the memory of a guest as a crashed kernel leaves it, with its description.

    Raises: ValueError when the machine has less RAM than the layout.
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
    loads = (
        (KERNEL_TEXT, MIB, MIB, TEXT_SIZE),
        (DIRECT_MAP + LOW_START, LOW_START, at + BACKUP_AT, LOW_SIZE),
        (DIRECT_MAP + MIB, MIB, MIB, at - MIB),
    )
    info = elfcorehdr.vmcoreinfo(f"OSRELEASE={RELEASE}\nPAGESIZE=4096\n".encode())
    elfcorehdr.build(ram, at, loads, [info], at + NOTES_AT)
