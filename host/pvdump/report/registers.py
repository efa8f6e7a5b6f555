"""The CPUs' registers at the crash, from the notes of a vmcore.

Used by corefile.py. Source: Linux include/linux/elfcore.h, struct elf_prstatus; asm/user_64.h.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

NAMES = (
    *("r15", "r14", "r13", "r12", "bp", "bx", "r11", "r10", "r9", "r8", "ax", "cx", "dx", "si"),
    *("di", "orig_ax", "ip", "cs", "flags", "sp", "ss", "fs_base", "gs_base", "ds", "es", "fs"),
    "gs",
)
PID = struct.Struct("<I")
PID_AT = 32
VALUES = struct.Struct(f"<{len(NAMES)}Q")
VALUES_AT = 112
SIZE = 336  # of struct elf_prstatus


class Registers(NamedTuple):
    """The registers of a CPU.

    Attributes:
        pid: of the task that ran on it, 0 for the idle task.
        values: by their names, as NAMES has them.
    """

    pid: int
    values: dict[str, int]


def decode(raw: bytes) -> Registers:
    """Read struct elf_prstatus, SIZE bytes."""
    values = VALUES.unpack_from(raw, VALUES_AT)
    return Registers(PID.unpack_from(raw, PID_AT)[0], dict(zip(NAMES, values)))
