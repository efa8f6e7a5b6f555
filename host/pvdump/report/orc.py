"""ORC, the kernel's own tables of how to unwind its stacks, as they lie in its memory.

Used by unwind.py. An entry tells how the caller's stack pointer, return address and RBP are found
from any address of the code. The layout of its bit-fields changed in 6.3 and 6.4; the kernel's BTF
has it, as struct orc_entry. Linux 7 has other numbers for the registers, of which nothing in the
dump tells; but nearly all entries count from RSP, so its number is the most frequent one.
Source: Linux arch/x86/include/asm/orc_types.h; arch/x86/kernel/unwind_orc.c.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Optional

from pvfw.errors import CoreError

from ..arm.btf import Btf

IP = struct.Struct("<i")  # what is added to its own address
# Registers, by their numbers in Linux 6: orc_types.h's ORC_REG_*.
UNDEFINED, PREV_SP, DX, DI, BP, SP, R10, R13, BP_INDIRECT, SP_INDIRECT, AX = range(11)
REGISTERS = tuple(range(11))
REGISTERS_7 = (*(UNDEFINED, AX, DX, SP, BP, DI, R10, R13, PREV_SP, SP_INDIRECT, BP_INDIRECT),)
UNKNOWN = 15  # a number that stands for no register
SAMPLES = 4096  # entries that are looked at for the number of RSP
# What is on the stack. The first two have been types of their own since 6.4; before, an entry had
# a bit `end`, and was undefined where its sp_reg is.
NOTHING, END, CALL, REGS, REGS_PARTIAL = range(5)
FIELDS = ("sp_offset", "bp_offset", "sp_reg", "bp_reg", "type")
SIZE = 6  # of struct orc_entry, in every version


class Entry(NamedTuple):
    """How to unwind from some addresses.

    Attributes:
        sp_reg: register that the caller's stack pointer counts from.
        sp_offset: added to it, bytes.
        bp_reg: register that the place of the caller's RBP counts from; UNDEFINED: RBP is kept.
        bp_offset: added to it, bytes.
        type: NOTHING to REGS_PARTIAL.
    """

    sp_reg: int
    sp_offset: int
    bp_reg: int
    bp_offset: int
    type: int


@dataclass(frozen=True)
class Layout:
    """Where the fields of struct orc_entry are.

    Attributes:
        places: first bit and number of bits of each of FIELDS and, in kernels before 6.4, of `end`.
        registers: by their numbers in the entries.
    """

    places: dict[str, tuple[int, int]]
    registers: tuple[int, ...]

    @staticmethod
    def of(types: Btf, entries: bytes) -> Layout:
        """Find the layout of a kernel.

        Args:
            types: the kernel's.
            entries: of the kernel's own table.

        Raises:
            CoreError: its BTF has no such structure, or one that is not known here.
        """
        places = {}
        for name in (*FIELDS, "end"):
            field = types.field("orc_entry", name)
            if field is not None:
                places[name] = (field.bits, field.width or 8 * field.size)
        if types.size("orc_entry") != SIZE or not set(FIELDS) <= set(places):
            raise CoreError("the kernel's BTF has no struct orc_entry that is known here")
        layout = Layout(places, REGISTERS)
        count = len(entries) // SIZE
        step = max(count // SAMPLES, 1)
        numbers = [
            layout.decode(entries[at * SIZE : (at + 1) * SIZE]).sp_reg
            for at in range(0, count, step)
        ]
        newer = numbers.count(REGISTERS_7.index(SP)) > numbers.count(REGISTERS.index(SP))
        return Layout(places, REGISTERS_7) if newer else layout

    def decode(self, raw: bytes) -> Entry:
        """Read an entry of SIZE bytes."""
        whole = int.from_bytes(raw, "little")
        value = {name: whole >> at & (1 << bits) - 1 for name, (at, bits) in self.places.items()}
        kind = value["type"]
        if "end" in self.places:
            kind = END if value["end"] else kind + CALL
            if kind == CALL and value["sp_reg"] == UNDEFINED:
                kind = NOTHING
        return Entry(
            self._register(value["sp_reg"]),
            _signed(value["sp_offset"]),
            self._register(value["bp_reg"]),
            _signed(value["bp_offset"]),
            kind,
        )

    def _register(self, number: int) -> int:
        return self.registers[number] if number < len(self.registers) else UNKNOWN


def _signed(value: int) -> int:
    return value - (1 << 16) if value >> 15 else value


class Table:
    """The entries of the kernel or of a module, in order of their addresses.

    Args:
        address: of the addresses.
        ips: the addresses, each 4 bytes that count from their own place.
        entries: struct orc_entry of each.
        layout: of the entries.
        ranges: (first address, end) of the code that they tell of.

    Raises:
        CoreError: there are not as many entries as addresses.
    """

    def __init__(
        self,
        address: int,
        ips: bytes,
        entries: bytes,
        layout: Layout,
        ranges: Sequence[tuple[int, int]],
    ) -> None:
        if len(ips) // IP.size != len(entries) // SIZE:
            raise CoreError(
                f"the kernel's ORC tables are damaged: {len(ips) // IP.size} addresses, "
                f"{len(entries) // SIZE} entries"
            )
        self._address = address
        self._ips = ips
        self._entries = entries
        self._layout = layout
        self._ranges = ranges
        self._count = len(ips) // IP.size

    def find(self, ip: int) -> Optional[Entry]:
        """Return the entry of an address of code, None where they do not tell of it."""
        if not any(first <= ip < end for first, end in self._ranges):
            return None
        low, high = 0, self._count
        while low < high:
            middle = (low + high) // 2
            if self._ip(middle) <= ip:
                low = middle + 1
            else:
                high = middle
        if low == 0:
            return None
        return self._layout.decode(self._entries[(low - 1) * SIZE : low * SIZE])

    def _ip(self, number: int) -> int:
        at = number * IP.size
        value: int = IP.unpack_from(self._ips, at)[0]
        return self._address + at + value
