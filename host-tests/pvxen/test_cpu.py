"""The CPU of an embedded machine: small programs, and what Xen and their handlers see of them."""

import struct
import subprocess
from errno import EFAULT

import pytest

from pvxen import pagetables
from pvxen.cpu import Cpu, CpuError
from pvxen.loader import Start
from pvxen.machine import Machine, Shutdown
from xenpv import abi

CODE, DATA, IDT, IDTR = 0x10000, 0x20000, 0x30000, 0x31000
PAGE = 0x40000  # of the hypercalls
FREE = 0x80000
UNMAPPED = 0x40000000
HANDLER_SELECTOR = 8
BEGIN = f"""
    mov $0x40000002, %eax
    cpuid
    mov %ebx, %ecx
    xor %edx, %edx
    mov ${PAGE:#x}, %eax
    wrmsr
    mov ${FREE:#x}, %rsp
"""


def assemble(folder, text):
    """The bytes of a 64-bit program for CODE."""
    (folder / "code.s").write_text(text)
    subprocess.run(["as", "--64", "-o", "code.o", "code.s"], cwd=folder, check=True)
    link = ["ld", "--oformat", "binary", f"-Ttext={CODE:#x}", "-e", "0", "-o", "code.bin", "code.o"]
    subprocess.run(link, cwd=folder, check=True)
    return (folder / "code.bin").read_bytes()


def run(folder, text, bits=64, output=lambda byte: None):
    """Run a program to the end of its domain. Returns the machine."""
    machine = Machine(4 << 20)
    code = assemble(folder, text)
    machine.ram[CODE : CODE + len(code)] = code
    cpu = Cpu(machine, output)
    cpu.start(machine, Start(bits, CODE, DATA, FREE))
    with pytest.raises(Shutdown):
        cpu.run()
    return machine


def word(machine, at=DATA):
    return struct.unpack_from("<Q", machine.ram, at)[0]


def call(number, *arguments):
    """Assembly of a hypercall."""
    moves = "\n".join(
        f"mov ${value}, %{register}"
        for value, register in zip(arguments, ("rdi", "rsi", "rdx"), strict=False)
    )
    return f"{moves}\nmov ${PAGE + 32 * number:#x}, %rax\ncall *%rax\n"


STORE = f"mov %rax, {DATA:#x}\nhlt\n"


def test_a_hypercall_through_its_page_is_answered(tmp_path):
    program = BEGIN + call(abi.HYPERVISOR_xen_version, abi.XENVER_version, 0) + STORE
    assert word(run(tmp_path, program)) == 4 << 16 | 17


def test_an_argument_is_found_through_the_page_tables(tmp_path):
    """The last GiB of the address space is mapped to the first of memory, as the image does it."""
    high = -(1 << 31)
    tables = FREE  # of the loader: top, then pointers
    program = f"""
        {BEGIN}
        mov {tables:#x}, %rax
        mov %rax, {tables + 8 * 511:#x}
        mov {tables + 0x1000:#x}, %rax
        mov %rax, {tables + 0x1000 + 8 * 510:#x}
        movl ${abi.HVM_PARAM_STORE_PFN}, {DATA + 4:#x}
        movw ${abi.DOMID_SELF}, {DATA:#x}
        {call(abi.HYPERVISOR_hvm_op, abi.HVMOP_get_param, high + DATA)}
        hlt
    """
    assert word(run(tmp_path, program), DATA + 8) == 0
    machine = run(
        tmp_path, program.replace(f"${high + DATA}", f"${UNMAPPED + DATA}").replace("hlt", STORE)
    )
    assert word(machine) == (1 << 64) - EFAULT


def test_halting_with_interrupts_off_powers_the_domain_off(tmp_path):
    assert run(tmp_path, "cli\nhlt").shutdown_reason == abi.SHUTDOWN_poweroff


def test_a_32_bit_entry_begins_without_paging(tmp_path):
    program = f"""
        .code32
        mov %cr0, %eax
        mov %eax, {DATA:#x}
        mov %ebx, {DATA + 4:#x}
        hlt
    """
    cr0, info = struct.unpack("<II", struct.pack("<Q", word(run(tmp_path, program, bits=32))))
    assert (cr0 >> 31, cr0 & 1, info) == (0, 1, DATA)


# Two faults, one after the other: the second is none that came while the first was handled.
FAULTS = f"""
    mov ${FREE:#x}, %rsp
    lgdt gdtr
    push ${HANDLER_SELECTOR}
    push $1f
    lretq
1:  lidt {IDTR:#x}
    mov ${DATA + 8:#x}, %rbx
    mov %eax, {UNMAPPED:#x}
    mov {UNMAPPED + 0x200000:#x}, %eax
    ud2
    hlt
handler:
    pop %rax            # the error code
    mov %cr2, %rcx
    mov %rax, (%rbx)
    mov %rcx, 8(%rbx)
    add $16, %rbx
    addq $7, (%rsp)     # the length of both instructions
    iretq
undefined:
    mov (%rsp), %rax
    mov %rax, {DATA:#x}
    addq $2, (%rsp)
    iretq
gdtr:
    .word 15
    .quad 2f
2:  .quad 0, 0x00af9b000000ffff
"""


@pytest.fixture
def handled(tmp_path):
    """The machine in which FAULTS ran, with handlers."""
    machine = Machine(4 << 20)
    code = assemble(tmp_path, FAULTS)
    machine.ram[CODE : CODE + len(code)] = code
    symbols = subprocess.run(["nm", "code.o"], cwd=tmp_path, capture_output=True, text=True)
    offsets = {line.split()[2]: int(line.split()[0], 16) for line in symbols.stdout.splitlines()}
    for vector, name in ((14, "handler"), (6, "undefined")):
        gate = struct.pack(
            "<HHHHI4x", CODE + offsets[name] & 0xFFFF, HANDLER_SELECTOR, 0x8E00, 1, 0
        )
        machine.ram[IDT + 16 * vector : IDT + 16 * vector + 16] = gate
    struct.pack_into("<HQ", machine.ram, IDTR, 4095, IDT)
    cpu = Cpu(machine, lambda byte: None)
    cpu.start(machine, Start(64, CODE, DATA, FREE))
    with pytest.raises(Shutdown):
        cpu.run()
    return machine, CODE + offsets["handler"] - 3


def test_each_page_fault_has_its_address_and_error_code(handled):
    machine, _ = handled
    faults = struct.unpack_from("<4Q", machine.ram, DATA + 8)
    assert faults == (2, UNMAPPED, 0, UNMAPPED + 0x200000)


def test_an_undefined_instruction_is_handed_to_its_handler(handled):
    machine, at = handled
    assert word(machine) == at


def test_an_exception_without_a_handler_ends_the_run_with_its_place(tmp_path):
    with pytest.raises(CpuError, match=f"exception 6 without a handler, rip 0x{CODE + 1:x}"):
        run(tmp_path, "nop\nud2\n")


def test_port_e9_goes_to_the_output_byte_by_byte(tmp_path):
    said = bytearray()
    program = "mov $0x41, %al\nout %al, $0xe9\ninc %al\nout %al, $0xe9\nhlt\n"
    run(tmp_path, program, output=said.append)
    assert said == b"AB"


class TestPageTables:
    @pytest.mark.parametrize("address", [0, 0x1234, (1 << 30) - 1])
    def test_the_first_gib_is_mapped_to_itself(self, machine, address):
        root = pagetables.map_first_gib(machine.ram, FREE)
        assert pagetables.walk(machine.ram, root, 4, address) == address

    def test_beyond_nothing_is_mapped(self, machine):
        root = pagetables.map_first_gib(machine.ram, FREE)
        assert pagetables.walk(machine.ram, root, 4, 1 << 30) is None

    def test_a_table_outside_of_ram_maps_nothing(self, machine):
        assert pagetables.walk(machine.ram, len(machine.ram), 4, 0) is None
