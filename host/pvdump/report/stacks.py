"""The stacks of tasks in a dump, as functions with their names.

Used by tasks.py. The rules: a task that ran at the crash is walked from its CPU's registers, any
other from where it was switched away; a stack that cannot be followed to its end has the frames
that were found, and a line on why.
Source: Linux arch/x86/include/asm/switch_to.h, struct inactive_task_frame.
"""

from __future__ import annotations

import struct
from contextlib import suppress
from typing import Optional

import drgn

from pvfw.errors import CoreError

from . import orc
from .facts import Function, Stack
from .orc import Entry
from .program import Core
from .registers import Registers
from .unwind import USER, WORD, State, Unwinder

# A call of x86-64 by a distance: its code, and bytes from behind it to the function.
CALL = struct.Struct("<Bi")
CALL_CODE = 0xE8
FRAME_MAX = 1024  # bytes of a function's frame that are searched
KERNEL = 1 << 63  # the kernel's addresses begin here


class Stacks:
    """Finds the stacks of tasks.

    Args:
        core: the dump.
        registers: of the CPUs, by their number where the dump says so.
    """

    def __init__(self, core: Core, registers: list[Registers]) -> None:
        self._core = core
        self._registers = registers
        self._unwinder = Unwinder(core.read, core.find_orc)

    def running(self, task: drgn.Object, cpu: int) -> Stack:
        """Return the stack of a task that ran on a CPU at the crash."""
        if not self._core.has_orc:
            return self._by_drgn(task)
        pid = task.pid.value_()
        # Notes are in the order of CPUs, but one that was offline has none.
        at = self._registers[cpu : cpu + 1] + (self._registers if pid else [])
        values = next((each.values for each in at if each.pid == pid), None)
        if values is None:
            return Stack(ends="the dump does not have the CPU's registers")
        if values["cs"] & USER == USER:
            return Stack(ends="it ran in user space")
        state = State(values["ip"], values["sp"], values["bp"], True, values)
        state.entry = self._entry(state)
        return self._walk(state)

    def sleeping(self, task: drgn.Object) -> Stack:
        """Return the stack of a task that did not run at the crash."""
        if not self._core.has_orc:
            return self._by_drgn(task)
        try:
            sp = task.thread.sp.value_()
            frame = drgn.Object(task.prog_, "struct inactive_task_frame", address=sp)
            ip, bp = frame.ret_addr.value_(), frame.bp.value_()
        except (LookupError, drgn.FaultError) as error:
            return Stack(ends=f"its registers are not in the dump: {error}")
        return self._walk(State(ip, sp + frame.type_.size, bp, False))

    def _entry(self, state: State) -> Optional[Entry]:
        """Find out how to go on from code that the tables do not tell of.

        A panic's own registers are those of __crash_kexec, which the tables leave out. Its return
        address is the first on the stack that stands behind a call of the function.
        """
        found, symbol = self._core.find_orc(state.ip), self._symbol(state.ip)
        if found is None or found.type != orc.NOTHING or symbol is None:
            return None
        with suppress(CoreError):
            for offset in range(0, FRAME_MAX, WORD.size):
                (address,) = WORD.unpack(self._core.read(state.sp + offset, WORD.size))
                if self._calls(address, symbol.address):
                    return Entry(orc.SP, offset + WORD.size, orc.UNDEFINED, 0, orc.CALL)
        return None

    def _calls(self, address: int, function: int) -> bool:
        """Tell whether the instruction before an address calls a function."""
        try:
            code, distance = CALL.unpack(self._core.read(address - CALL.size, CALL.size))
        except CoreError:
            return False
        return bool(code == CALL_CODE and address + distance == function)

    def _walk(self, state: State) -> Stack:
        stack = Stack()
        try:
            for frame in self._unwinder.walk(state):
                stack.frames.append(self._function(frame.ip, frame.place))
        except CoreError as error:
            stack.ends = str(error)
        return stack

    def _by_drgn(self, task: drgn.Object) -> Stack:
        """Return a stack by drgn's own unwinder, which reads files of debug symbols."""
        stack = Stack()
        try:
            for frame in task.prog_.stack_trace(task):
                if not frame.is_inline:
                    place = frame.pc - (0 if frame.interrupted else 1)
                    stack.frames.append(self._function(frame.pc, place))
        except (LookupError, ValueError, drgn.FaultError) as error:
            stack.ends = str(error)
        return stack

    def _function(self, ip: int, place: int) -> Function:
        symbol = self._symbol(place)
        module = self._core.module_of(place)
        if symbol is None:
            return Function("", hex(ip), 0, 0, module, [])
        offset = ip - symbol.address
        return Function(symbol.name, hex(ip), offset, symbol.size, module, self._source(place))

    def _symbol(self, place: int) -> Optional[drgn.Symbol]:
        if place < KERNEL:
            return None  # the symbols there are offsets of per-CPU variables
        try:
            return self._core.program.symbol(place)
        except LookupError:
            return None

    def _source(self, place: int) -> list[str]:
        if not self._core.has_debug_info:
            return []
        try:
            found = self._core.program.source_location(place)
        except LookupError:
            return []
        return [f"{each.filename}:{each.line}" for each in found if each.filename]
