"""The crashed kernel's memory from elfcorehdr: notes, ranges joined, and every damage to them."""

import struct

import pytest

from pvfw.errors import CoreError
from pvfw.oldmem import KERNEL_MAPPINGS_MAX, NOTES_COUNT_MAX, PROBLEMS_MAX, OldMemory
from pvxen.elfcorehdr import DIRECT_MAP, KERNEL_TEXT, build, cpu_notes, ehdr, note, vmcoreinfo

AT = 0x200000
HOLE = (0x800000, 0xC00000)
NOWHERE = 1 << 43
CPU_NOTES = cpu_notes(2)
INFO = vmcoreinfo(b"OSRELEASE=6.1.0-44\nPAGESIZE=4096\nNUMBER(phys_base)=-1048576\n")
LOADS = [
    (KERNEL_TEXT, 0x1000000, 0x1000000, 0x200000),
    (DIRECT_MAP + 0x1000, 0x1000, 0x900000, 0x9EC00),  # low 640 KiB, read from its backup
    (DIRECT_MAP + 0x100000, 0x100000, 0x100000, 0x700000),
    (DIRECT_MAP + 0xC00000, 0xC00000, 0xC00000, 0xF40000),
]


def memory(machine, loads=LOADS, notes=(*CPU_NOTES, INFO), hole=(0, 0)):
    build(machine.ram, AT, loads, notes)
    return OldMemory(AT, hole)


def spans(ranges):
    return [(area.source, area.paddr, area.vaddr, area.size) for area in ranges]


def notes(machine, found):
    return [bytes(machine.ram[at : at + size]) for at, size in found.notes]


def same(load):
    """The span of a PT_LOAD that is taken as it is."""
    vaddr, paddr, offset, size = load
    return offset, paddr, vaddr, size


# Notes.


def test_notes_are_found_without_their_padding(machine):
    found = memory(machine)
    assert notes(machine, found) == [*CPU_NOTES, INFO]
    assert found.problems == []


def test_values_of_vmcoreinfo_are_found_by_their_key(machine):
    found = memory(machine)
    assert found.info("OSRELEASE") == "6.1.0-44"
    assert found.info("NUMBER(phys_base)") == "-1048576"
    assert found.info("SYMBOL(none)") == ""


def test_the_hypervisor_s_own_vmcoreinfo_is_not_the_kernel_s(machine):
    other = note(b"VMCOREINFO_XEN", 0, b"OSRELEASE=xen\n")
    assert memory(machine, notes=[INFO, other]).info("OSRELEASE") == "6.1.0-44"


def test_a_damaged_note_is_left_out_and_told(machine):
    damaged = struct.pack("<III", 5, 5000, 1) + b"CORE\0"
    found = memory(machine, notes=[damaged, *CPU_NOTES, INFO])
    assert notes(machine, found) == [*CPU_NOTES, INFO]
    assert len(found.problems) == 1
    assert "is damaged" in found.problems[0]


@pytest.mark.parametrize(
    "raw",
    [
        b"\x5a" * 512,
        bytes(512),
        vmcoreinfo(b"\x5a" * 512),
        None,
    ],
    ids=["overwritten", "namesz 0", "text overwritten", "missing"],
)
def test_without_vmcoreinfo_all_memory_is_still_found_and_it_is_told(raw, machine):
    found = memory(machine, notes=[*CPU_NOTES, *([] if raw is None else [raw])])
    assert spans(found.ranges()) == [same(load) for load in LOADS[1:]]
    assert found.info("OSRELEASE") == ""
    assert "VMCOREINFO is missing or overwritten" in found.problems[-1]


@pytest.mark.parametrize("place", [0, NOWHERE, (1 << 64) - 4096])
def test_a_note_that_lies_nowhere_is_left_out_and_told(place, machine):
    build(machine.ram, AT, LOADS, [INFO, *CPU_NOTES])
    struct.pack_into("<Q", machine.ram, AT + 64 + 56 + 8, place)
    found = OldMemory(AT, (0, 0))
    assert notes(machine, found) == [INFO, CPU_NOTES[1]]
    assert f"a PT_NOTE at 0x{place:x} is unusable" in found.problems[0]


def test_more_notes_than_can_be_kept_are_told_and_the_memory_is_found(machine):
    many = [note(b"CORE", 1, bytes(8))] * (NOTES_COUNT_MAX + 1)
    found = memory(machine, loads=[(0, 0x1000, 0x1000, 0x1000)], notes=[INFO, *many])
    assert len(found.notes) == NOTES_COUNT_MAX
    assert len(found.problems) == 2
    assert "more than can be kept" in found.problems[0]
    assert spans(found.ranges()) == [(0x1000, 0x1000, 0, 0x1000)]


# Ranges.


def test_memory_is_read_at_p_offset_and_was_at_p_paddr(machine):
    found = memory(machine)
    assert spans(found.kernel) == [same(LOADS[0])]
    assert spans(found.ranges()) == [same(load) for load in LOADS[1:]]


def test_our_own_memory_is_left_out_of_every_range(machine):
    loads = [
        (KERNEL_TEXT, 0xB00000, 0xB00000, 0x200000),
        (DIRECT_MAP + 0x100000, 0x100000, 0x100000, 0xF00000),
    ]
    found = memory(machine, loads, hole=HOLE)
    assert spans(found.kernel) == [(0xC00000, 0xC00000, KERNEL_TEXT + 0x100000, 0x100000)]
    assert spans(found.ranges()) == [
        (0x100000, 0x100000, DIRECT_MAP + 0x100000, 0x700000),
        (0xC00000, 0xC00000, DIRECT_MAP + 0xC00000, 0x400000),
    ]


def test_900_ranges_of_128_mib_are_one(machine):
    size = 128 << 20
    loads = [(DIRECT_MAP + at, at, at, size) for at in range(0, 900 * size, size)]
    assert spans(memory(machine, loads).ranges()) == [(0, 0, DIRECT_MAP, 900 * size)]


@pytest.mark.parametrize(
    "other",
    [
        (DIRECT_MAP + 0x3000, 0x3000, 0x3000, 0x1000),
        (DIRECT_MAP + 0x2000, 0x2000, 0x3000, 0x1000),
        (DIRECT_MAP + 0x3000, 0x2000, 0x2000, 0x1000),
        (0, 0x2000, 0x2000, 0x1000),
    ],
    ids=["a gap", "read elsewhere", "mapped elsewhere", "not mapped"],
)
def test_ranges_that_do_not_follow_in_every_address_stay_two(other, machine):
    first = (DIRECT_MAP + 0x1000, 0x1000, 0x1000, 0x1000)
    assert spans(memory(machine, [first, other]).ranges()) == [same(first), same(other)]


def test_ranges_without_a_virtual_address_are_joined_too(machine):
    found = memory(machine, [(0, 0x1000, 0x1000, 0x1000), (0, 0x2000, 0x2000, 0x3000)])
    assert spans(found.ranges()) == [(0x1000, 0x1000, 0, 0x4000)]


def test_memory_with_the_virtual_address_minus_1_is_ram_without_a_mapping(machine):
    found = memory(machine, [(2**64 - 1, 0x100000, 0x100000, 0x200000)])
    assert spans(found.kernel) == []
    assert spans(found.ranges()) == [(0x100000, 0x100000, 0, 0x200000)]


@pytest.mark.parametrize(
    "load",
    [
        (0, 1 << 50, 1 << 50, 4096),
        (0, 2**64 - 4096, 0x1000, 8192),
        (0, 0x1000, 2**64 - 4096, 8192),
        (0, 0x1000, 0x1000, 2**64 - 1),
        (KERNEL_TEXT, 1 << 60, 1 << 60, 4096),
    ],
)
def test_a_range_that_can_be_no_memory_is_told_and_costs_no_other(load, machine):
    found = memory(machine, [LOADS[1], load, LOADS[2]])
    assert spans(found.ranges()) == [same(LOADS[1]), same(LOADS[2])]
    assert found.problems == [
        f"elfcorehdr: a range of 0x{load[3]:x} bytes at 0x{load[1]:x} is no memory"
    ]


def test_an_empty_range_is_passed_over(machine):
    found = memory(machine, [(0, 1 << 50, 1 << 50, 0), LOADS[1]])
    assert spans(found.ranges()) == [same(LOADS[1])]
    assert found.problems == []


@pytest.mark.parametrize("memsz", [0, 0x1000])
def test_bytes_of_a_range_beyond_its_size_in_memory_are_told_and_cost_no_other(memsz, machine):
    build(machine.ram, AT, [(0, 0x1000, 0x1000, 0x3000), LOADS[2]], [INFO])
    struct.pack_into("<Q", machine.ram, AT + 64 + 56 + 40, memsz)
    found = OldMemory(AT, (0, 0))
    kept = [(0x1000, 0x1000, 0, memsz)] if memsz else []
    assert spans(found.ranges()) == [*kept, same(LOADS[2])]
    assert found.problems == [
        f"elfcorehdr: 0x{0x3000 - memsz:x} bytes at 0x{0x1000 + memsz:x}"
        " are beyond p_memsz: not taken"
    ]


def test_more_mappings_of_the_kernel_than_are_kept_are_told(machine):
    text = [(KERNEL_TEXT + 2 * at, at, at, 0x1000) for at in range(0x100000, 0x120000, 0x1000)]
    found = memory(machine, [*text, LOADS[2]])
    assert spans(found.kernel) == [same(load) for load in text[:KERNEL_MAPPINGS_MAX]]
    assert len(found.problems) == PROBLEMS_MAX + 1
    untold = len(text) - KERNEL_MAPPINGS_MAX - PROBLEMS_MAX
    assert found.problems[-1] == f"elfcorehdr: {untold} more of its entries are unusable"


# Headers.


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (b"\xff" * 64, "no ELF core header"),
        (bytes(64), "no ELF core header"),
        (ehdr(1, magic=b"\x7fELG"), "no ELF core header"),
        (ehdr(1, kind=2), "no ELF core header"),
        (ehdr(1, machine=3), "no ELF core header"),
        (ehdr(0), "phnum 0"),
        (ehdr(65535), "phnum 65535"),
        (ehdr(1, phentsize=32), "phentsize 32"),
    ],
)
def test_what_is_no_elf_core_header_is_refused(header, message, machine):
    machine.ram[AT : AT + len(header)] = header
    with pytest.raises(CoreError, match=message):
        OldMemory(AT, (0, 0))


@pytest.mark.parametrize("addr", [64, 0xFF8, 1 << 43, (1 << 44) - 32])
def test_an_address_where_no_memory_can_be_is_refused(addr, machine):
    with pytest.raises(CoreError, match="elfcorehdr"):
        OldMemory(addr, (0, 0))


@pytest.mark.parametrize("loads", [[], [(0, 1 << 50, 1 << 50, 4096)]])
def test_a_header_that_names_no_memory_is_refused(loads, machine):
    with pytest.raises(CoreError, match="names no memory"):
        memory(machine, loads)


def test_a_crashed_kernel_whose_memory_is_all_ours_is_refused(machine):
    with pytest.raises(CoreError, match="names no memory"):
        memory(machine, [(0, 0x900000, 0x900000, 0x1000)], hole=HOLE)
