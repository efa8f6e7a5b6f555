"""The two fields of Unicorn's CPU state that its interface does not give: of the last exception.

Used by cpu.py. error_code is what the exception pushes. old_exception is what QEMU's CPU clears
when it has entered a handler; Unicorn enters none, so a second page fault would be a double fault,
and after that one the CPU stands still. The rule: no offset is written here. Both fields are found
once, as what two faults of known kinds change in a saved context.
Source: QEMU target/i386/excp_helper.c (check_exception).
"""

from __future__ import annotations

import ctypes
import functools
import mmap
import struct

import unicorn
from unicorn import x86_const as x86

from . import pagetables

CR0_PG_PE, CR4_PAE = 0x80000001, 0x20
PAGE_FAULT = 14
NONE = -1
READ, WRITE = b"\x8b\x03", b"\x89\x03"  # mov (%rbx), %eax; mov %eax, (%rbx)
WRITE_ERROR = 2  # a write to what is not there
CODE, TABLES, NOWHERE = 0x1000, 0x4000, 0x40000000
SIZE = 0x10000


class NotFound(Exception):
    """This version of Unicorn does not have the fields."""


def clear(uc: unicorn.Uc) -> int:
    """Let the CPU forget its last exception, whose handler has been entered.

    Returns: the error code of that exception.
    """
    error_at, old_at = offsets()
    context = uc.context_save()
    address = ctypes.cast(context.context, ctypes.c_void_p).value
    assert address is not None
    error = ctypes.c_int32.from_address(address + error_at).value
    ctypes.c_int32.from_address(address + old_at).value = NONE
    uc.context_restore(context)
    return error


@functools.cache
def offsets() -> tuple[int, int]:
    """Return the offsets of error_code and old_exception in a saved context. Raises NotFound."""
    before, reading = _fault(READ)
    _, writing = _fault(WRITE)
    rows = list(zip(before, reading, writing, strict=True))
    error = [i for i, row in enumerate(rows) if row == (0, 0, WRITE_ERROR)]
    old = [i for i, row in enumerate(rows) if row == (NONE, PAGE_FAULT, PAGE_FAULT)]
    if len(error) != 1 or len(old) != 1:
        raise NotFound(f"Unicorn {unicorn.__version__}: error codes {error}, exceptions {old}")
    return 4 * error[0], 4 * old[0]


def _fault(code: bytes) -> tuple[list[int], list[int]]:
    """Return the contexts before and at a page fault of an instruction, as 32-bit integers."""
    ram = mmap.mmap(-1, SIZE)
    ram[CODE : CODE + len(code)] = code
    pointer = ctypes.addressof(ctypes.c_char.from_buffer(ram))
    uc = unicorn.Uc(unicorn.UC_ARCH_X86, unicorn.UC_MODE_64)
    uc.mem_map_ptr(0, SIZE, unicorn.UC_PROT_ALL, pointer)
    uc.reg_write(x86.UC_X86_REG_RBX, NOWHERE)
    uc.reg_write(x86.UC_X86_REG_CR3, pagetables.map_first_gib(ram, TABLES))
    uc.reg_write(x86.UC_X86_REG_CR4, CR4_PAE)
    uc.reg_write(x86.UC_X86_REG_CR0, CR0_PG_PE)
    uc.reg_write(x86.UC_X86_REG_RIP, CODE)
    contexts = [_integers(uc)]

    def fault(uc: unicorn.Uc, vector: int, data: object) -> None:
        contexts.append(_integers(uc))
        uc.emu_stop()

    uc.hook_add(unicorn.UC_HOOK_INTR, fault)
    uc.emu_start(CODE, NOWHERE)
    return contexts[0], contexts[1]


def _integers(uc: unicorn.Uc) -> list[int]:
    raw = bytes(uc.context_save())
    return list(struct.unpack_from(f"<{len(raw) // 4}i", raw))
