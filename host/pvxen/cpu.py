"""A vCPU that executes the guest's own instructions: the second way to drive an embedded machine.

The first is host/hw.py, where drivers and firmware run under CPython. Here the very image runs, by
the Unicorn engine, on the machine's RAM; what leaves the CPU (CPUID of Xen, hypercalls, HLT) goes
to the same Machine. What Unicorn does not do is done here: exceptions through the IDT, and the
hypercall page. The rule: no protocol is known here but that of the CPU.

Time stands still between hypercalls: Unicorn cannot be told what RDTSC gives, so Xen's time area
says a rate of nearly 0, and Machine writes it anew after each hypercall.
Source: Intel SDM volume 3, 6.12 to 6.14; xen/include/public/arch-x86/cpuid.h.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable
from typing import NoReturn

import unicorn
from unicorn import x86_const as x86

import hw
from xenpv import abi
from xenpv.abi import PAGE_SIZE

from . import exceptionstate, pagetables
from .loader import Start
from .machine import XEN_LEAF, Machine, Shutdown

PORT_DEBUG = 0xE9
U64 = 0xFFFFFFFFFFFFFFFF
VMCALL = b"\x0f\x01\xc1"
# Each entry: mov $nr, %eax; vmcall; ret.
HYPERCALL_PAGE = b"".join(
    (b"\xb8" + nr.to_bytes(4, "little") + VMCALL + b"\xc3").ljust(32, b"\xcc")
    for nr in range(PAGE_SIZE // 32)
)
# The MSR that takes the hypercall page's address: one that Unicorn stores, and that no image uses.
HYPERCALL_MSR = 0xC0000102  # KERNEL_GS_BASE
XEN_LEAVES = 0x100

CR0_PG_PE = 0x80000001
MSR_EFER, EFER_LMA_LME = 0xC0000080, 0x500
CR4_PAE, CR4_LA57 = 1 << 5, 1 << 12
RFLAGS_IF = 1 << 9
TSS_IST = 28  # offset of the (absent) stack 0
UNDEFINED = 6
WITH_ERROR_CODE = (8, 10, 11, 12, 13, 14, 17, 21, 29, 30)

# Where a 32-bit entry is asked for: descriptors (null, 32-bit code, data), then the way there.
GDT = struct.pack("<QQQ", 0, 0x00CF9B000000FFFF, 0x00CF93000000FFFF)
SEL_CODE32, SEL_DATA = 8, 16


def _registers(names: str) -> tuple[int, ...]:
    return tuple(getattr(x86, f"UC_X86_REG_{name}") for name in names.split())


CPUID_RESULT = _registers("RAX RBX RCX RDX")
FRAME = _registers("RIP CS RFLAGS RSP SS")
HYPERCALL = _registers("RAX RDI RSI RDX R10 R8")


class CpuError(Exception):
    """The image did something that stops a CPU, or that this one cannot do."""


class Cpu:
    """One vCPU, for one machine after another on the same RAM.

    The translation of an image's code is kept, so the next run of the same image is faster.

    Args:
        machine: the first machine; its RAM is the CPU's.
        output: called with each byte that the guest writes to port 0xE9.
    """

    def __init__(self, machine: Machine, output: Callable[[int], None]) -> None:
        self.machine = machine
        self._output = output
        self._names_page = False  # CPUID has named the MSR of the hypercall page
        self._failed: BaseException | None = None
        self._uc = uc = unicorn.Uc(unicorn.UC_ARCH_X86, unicorn.UC_MODE_64)
        self._ram = (ctypes.c_char * len(machine.ram)).from_buffer(machine.ram)
        uc.mem_map_ptr(0, len(self._ram), unicorn.UC_PROT_ALL, ctypes.addressof(self._ram))
        uc.hook_add(unicorn.UC_HOOK_INTR, self._exception)
        uc.hook_add(unicorn.UC_HOOK_INSN_INVALID, self._undefined)
        uc.hook_add(unicorn.UC_HOOK_INSN, self._cpuid, aux1=x86.UC_X86_INS_CPUID)
        uc.hook_add(unicorn.UC_HOOK_INSN, self._out, aux1=x86.UC_X86_INS_OUT)
        uc.ctl_exits_enabled(True)  # there are none: a hook ends the execution, or HLT

    def start(self, machine: Machine, start: Start) -> None:
        """Take the state that a loader leaves.

        Args:
            machine: the one to run from now on, on the same RAM.
            start: at 64 bits on a map of the first GiB to itself, or at 32 bits without paging.
        """
        self.machine = machine
        machine.translate = self._translate
        uc, ram = self._uc, self.machine.ram
        uc.msr_write(HYPERCALL_MSR, 0)
        uc.msr_write(MSR_EFER, EFER_LMA_LME)
        uc.reg_write(x86.UC_X86_REG_IDTR, (0, 0, 0, 0))
        uc.reg_write(x86.UC_X86_REG_CR3, pagetables.map_first_gib(ram, start.free))
        uc.reg_write(x86.UC_X86_REG_CR4, CR4_PAE)
        uc.reg_write(x86.UC_X86_REG_CR0, CR0_PG_PE)
        uc.reg_write(x86.UC_X86_REG_RFLAGS, 2)
        uc.reg_write(x86.UC_X86_REG_RSI, start.info)
        uc.reg_write(x86.UC_X86_REG_RBX, start.info)
        rip = start.rip
        if start.bits == 32:
            page = start.free + pagetables.MAP_PAGES * PAGE_SIZE
            rip = page + len(GDT)
            code = GDT + leave_long_mode(rip, start.rip)
            ram[page : page + len(code)] = code
            uc.reg_write(x86.UC_X86_REG_GDTR, (0, page, len(GDT) - 1, 0))
            uc.reg_write(x86.UC_X86_REG_RSP, page + PAGE_SIZE)
        uc.reg_write(x86.UC_X86_REG_RIP, rip)

    def run(self) -> NoReturn:
        """Execute until the domain shuts down.

        Raises: Shutdown when it has; Deadlock; CpuError.
        """
        with hw.attached(self.machine):
            while True:
                self._execute()
                if self._names_page:
                    self._fill_hypercall_page()
                    continue
                # HLT with interrupts off: the last vCPU of the domain is down.
                self.machine.shutdown(abi.SHUTDOWN_poweroff)
                raise Shutdown(abi.SHUTDOWN_poweroff)

    def _execute(self) -> None:
        """Execute until a hook stops it, or HLT."""
        uc = self._uc
        self._failed = None
        try:
            uc.emu_start(uc.reg_read(x86.UC_X86_REG_RIP), 0)
        except unicorn.UcError as error:
            raise CpuError(f"{error} at {self._where()}") from None
        if self._failed is not None:
            raise self._failed

    def _fail(self, error: BaseException) -> None:
        """Raise an error of a hook where the execution was started: it cannot pass through C."""
        self._failed = error
        self._uc.emu_stop()

    # What leaves the CPU.

    def _out(self, uc: unicorn.Uc, port: int, size: int, value: int, data: object) -> None:
        if port == PORT_DEBUG:
            self._output(value & 0xFF)

    def _cpuid(self, uc: unicorn.Uc, data: object) -> int:
        """Answer Xen's leaves; all others are the emulated CPU's. Returns 1 if answered."""
        leaf = uc.reg_read(x86.UC_X86_REG_EAX)
        if not XEN_LEAF <= leaf < XEN_LEAF + XEN_LEAVES:
            return 0
        if leaf == XEN_LEAF + 2:
            values = 1, HYPERCALL_MSR, 0, 0
            self._names_page = True
            uc.emu_stop()
        else:
            values = self.machine.cpuid(leaf, uc.reg_read(x86.UC_X86_REG_ECX))
        for register, value in zip(CPUID_RESULT, values, strict=True):
            uc.reg_write(register, value)
        return 1

    def _fill_hypercall_page(self) -> None:
        """Go on to the WRMSR that names the page, and fill it as Xen does."""
        uc = self._uc
        self._names_page = False
        watch = uc.hook_add(unicorn.UC_HOOK_CODE, self._look_for_page)
        self._execute()
        uc.hook_del(watch)
        page = uc.msr_read(HYPERCALL_MSR)
        self.machine.ram[page : page + PAGE_SIZE] = HYPERCALL_PAGE
        uc.ctl_flush_tb()

    def _look_for_page(self, uc: unicorn.Uc, address: int, size: int, data: object) -> None:
        """Look whether the MSR has been written; called before each instruction until then."""
        if uc.msr_read(HYPERCALL_MSR):
            uc.emu_stop()

    def _undefined(self, uc: unicorn.Uc, data: object) -> bool:
        try:
            rip = uc.reg_read(x86.UC_X86_REG_RIP)
            if self._read(rip, len(VMCALL)) == VMCALL:
                number, *arguments = uc.reg_read_batch(HYPERCALL)
                answer = self.machine.hypercall(number & 0xFFFFFFFF, arguments)
                uc.reg_write(x86.UC_X86_REG_RAX, answer & U64)
                uc.reg_write(x86.UC_X86_REG_RIP, rip + len(VMCALL))
            else:
                self._deliver(UNDEFINED)
        except BaseException as error:
            self._fail(error)
        return True

    # Exceptions.

    def _exception(self, uc: unicorn.Uc, vector: int, data: object) -> None:
        try:
            self._deliver(vector)
        except BaseException as error:
            self._fail(error)

    def _deliver(self, vector: int) -> None:
        """Enter the handler of an exception, as the CPU does at privilege level 0."""
        uc = self._uc
        error = exceptionstate.clear(uc)
        _, idt, limit, _ = uc.reg_read(x86.UC_X86_REG_IDTR)
        gate = self._read(idt + 16 * vector, 16) if 16 * vector + 15 <= limit else None
        if gate is None:
            raise CpuError(f"exception {vector} without a handler, {self._where()}")
        low, selector, ist, middle, high = struct.unpack("<HHHHI4x", gate)
        rip, cs, flags, rsp, ss = uc.reg_read_batch(FRAME)
        top = self._interrupt_stack(ist & 7) if ist & 7 else rsp
        frame = [error] if vector in WITH_ERROR_CODE else []
        frame += [rip, cs, flags, rsp, ss]
        top = (top & ~15) - 8 * len(frame)
        at = self._translate(top)
        if at is None:
            raise CpuError(f"exception {vector} without a stack, {self._where()}")
        struct.pack_into(f"<{len(frame)}Q", self.machine.ram, at, *frame)
        uc.reg_write(x86.UC_X86_REG_RSP, top)
        uc.reg_write(x86.UC_X86_REG_CS, selector)
        uc.reg_write(x86.UC_X86_REG_RFLAGS, flags & ~RFLAGS_IF)
        uc.reg_write(x86.UC_X86_REG_RIP, high << 32 | middle << 16 | low)

    def _interrupt_stack(self, number: int) -> int:
        """Return the top of one of the stacks that the TSS names, 0 without one."""
        _, tss, _, _ = self._uc.reg_read(x86.UC_X86_REG_TR)
        return int.from_bytes(self._read(tss + TSS_IST + 8 * number, 8) or b"", "little")

    def _where(self) -> str:
        rip, address = (self._uc.reg_read(r) for r in (x86.UC_X86_REG_RIP, x86.UC_X86_REG_CR2))
        return f"rip 0x{rip:x}, cr2 0x{address:x}"

    # Memory.

    def _translate(self, address: int) -> int | None:
        """Return the physical address of a linear one by the guest's tables, or None."""
        uc = self._uc
        levels = 5 if uc.reg_read(x86.UC_X86_REG_CR4) & CR4_LA57 else 4
        root = uc.reg_read(x86.UC_X86_REG_CR3)
        return pagetables.walk(self.machine.ram, root, levels, address)

    def _read(self, address: int, length: int) -> bytes | None:
        at = self._translate(address)
        return None if at is None else self.machine.ram[at : at + length]


def leave_long_mode(at: int, entry: int) -> bytes:
    """Return code for `at` that leaves 64 bits for a 32-bit entry with paging off."""
    down = (
        b"\xb8" + SEL_DATA.to_bytes(4, "little")  # mov $SEL_DATA, %eax
        + b"\x8e\xd8\x8e\xc0\x8e\xd0"  # mov %eax, %ds; %es; %ss
        + b"\x0f\x20\xc0\x25\xff\xff\xff\x7f\x0f\x22\xc0"  # CR0.PG = 0
        + b"\xb9\x80\x00\x00\xc0\x31\xc0\x31\xd2\x0f\x30"  # EFER = 0
        + b"\x68" + entry.to_bytes(4, "little") + b"\xc3"  # push $entry; ret
    )  # fmt: skip
    # push $SEL_CODE32; push $down; lretq
    up = b"\x6a" + bytes([SEL_CODE32]) + b"\x68" + (at + 9).to_bytes(4, "little") + b"\x48\xcb"
    return up + down
