"""The walk up a stack of the kernel by its ORC tables.

Used by stacks.py. The rules: each address is checked by reading it, so a damaged stack ends the
walk and costs no frame before; a walk goes on until the tables say that the stack ends, user space
called, or FRAMES_MAX; code that no table tells of is taken to have a frame pointer, as the kernel's
own unwinder takes it.
Source: Linux arch/x86/kernel/unwind_orc.c, unwind_next_frame().
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Callable, NamedTuple, Optional

from pvfw.errors import CoreError

from . import orc
from .orc import Entry

FRAMES_MAX = 128
MASK = (1 << 64) - 1
WORD = struct.Struct("<Q")
# struct pt_regs of x86-64.
PT_REGS = (
    *("r15", "r14", "r13", "r12", "bp", "bx", "r11", "r10", "r9", "r8", "ax", "cx", "dx", "si"),
    *("di", "orig_ax", "ip", "cs", "flags", "sp", "ss"),
)
PT_REGS_SIZE = 8 * len(PT_REGS)
IRET_AT = 8 * PT_REGS.index("ip")  # what an interrupt alone pushes begins here
USER = 3  # of CS: the privilege level of user space
# Of code without an entry: pushes RBP, then has it point there.
FRAME_POINTER = Entry(orc.BP, 16, orc.PREV_SP, -16, orc.CALL)
# Of a call of address 0: the return address is on top.
NULL_CALL = Entry(orc.SP, 8, orc.UNDEFINED, 0, orc.CALL)
REGISTERS = {orc.R10: "r10", orc.R13: "r13", orc.DI: "di", orc.DX: "dx"}


class Frame(NamedTuple):
    """A function that was running.

    Attributes:
        ip: the next instruction.
        sp: its stack pointer.
        exact: whether it was interrupted at `ip`; else `ip` is where a call returns to, which may
            be behind the function's last byte.
    """

    ip: int
    sp: int
    exact: bool

    @property
    def place(self) -> int:
        """An address inside of the instruction that runs."""
        return self.ip if self.exact or not self.ip else self.ip - 1


@dataclass
class State:
    """Where a walk begins.

    Attributes:
        ip, sp, bp: registers.
        exact: as of Frame.
        more: other registers of PT_REGS, where they are known.
        entry: how to go on from there, where it is known better than by `ip`.
    """

    ip: int
    sp: int
    bp: int
    exact: bool
    more: dict[str, int] = field(default_factory=dict)
    entry: Optional[Entry] = None


class Unwinder:
    """Walks stacks.

    Args:
        read: reads bytes at a virtual address, or raises CoreError: (address, size).
        find: the ORC entry of an address of code, or None.
    """

    def __init__(
        self, read: Callable[[int, int], bytes], find: Callable[[int], Optional[Entry]]
    ) -> None:
        self._read = read
        self._find = find

    def walk(self, state: State) -> Iterator[Frame]:
        """Yield the frames of a stack, the innermost first.

        Raises:
            CoreError: it cannot be followed further; says why.
        """
        seen = set()
        for _ in range(FRAMES_MAX):
            frame = Frame(state.ip, state.sp, state.exact)
            if frame in seen:
                raise CoreError(f"the stack at {state.sp:#x} leads back to itself")
            seen.add(frame)
            yield frame
            following = self._caller(state, frame)
            if following is None:
                return
            state = following
        raise CoreError(f"it has more than {FRAMES_MAX} frames")

    def _caller(self, state: State, frame: Frame) -> Optional[State]:
        """Return the caller's registers, None at the end of the stack."""
        if state.ip == 0:
            entry = NULL_CALL
        else:
            entry = state.entry or self._find(frame.place) or FRAME_POINTER
        if entry.type == orc.END:
            return None
        if entry.type == orc.NOTHING:
            raise CoreError(f"the kernel's tables do not tell of the code at {state.ip:#x}")
        sp = self._stack(state, entry)
        if entry.type == orc.CALL:
            caller = State(self._word(sp - 8), sp, state.bp, False)
        else:
            registers = self._registers(sp, entry.type == orc.REGS)
            if registers["cs"] & USER == USER:
                return None
            # What was interrupted has its RBP only in full registers.
            bp = registers.get("bp", state.bp)
            caller = State(registers["ip"], registers["sp"], bp, True, registers)
        if entry.bp_reg == orc.PREV_SP:
            caller.bp = self._word(sp + entry.bp_offset)
        elif entry.bp_reg == orc.BP:
            caller.bp = self._word(state.bp + entry.bp_offset)
        return caller

    def _stack(self, state: State, entry: Entry) -> int:
        """Return the stack pointer from before the call or interrupt."""
        if entry.sp_reg == orc.SP:
            return state.sp + entry.sp_offset & MASK
        if entry.sp_reg == orc.BP:
            return state.bp + entry.sp_offset & MASK
        if entry.sp_reg == orc.SP_INDIRECT:
            return self._word(state.sp) + entry.sp_offset & MASK
        if entry.sp_reg == orc.BP_INDIRECT:
            return self._word(state.bp + entry.sp_offset)
        name = REGISTERS.get(entry.sp_reg, "")
        if name not in state.more:
            raise CoreError(f"register {entry.sp_reg} at {state.ip:#x} is not known")
        return state.more[name]

    def _registers(self, sp: int, full: bool) -> dict[str, int]:
        """Read the registers that an interrupt or exception left on the stack."""
        first = 0 if full else IRET_AT
        raw = self._read(sp, PT_REGS_SIZE - first)
        values = struct.unpack(f"<{len(raw) // 8}Q", raw)
        return dict(zip(PT_REGS[first // 8 :], values))

    def _word(self, address: int) -> int:
        value: int = WORD.unpack(self._read(address & MASK, WORD.size))[0]
        return value
