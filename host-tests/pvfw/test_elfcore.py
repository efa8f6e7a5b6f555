"""elfcorehdr to vmcore header: notes merged, ranges placed, the low backup, and broken headers."""

import io
import struct

import pytest
from elftools.elf.elffile import ELFFile

from pvfw import elfcore
from pvfw.errors import CoreError

AT = 0x200000
HOLE = (0x800000, 0xC00000)
INFO = b"OSRELEASE=6.1.0-44\nPAGESIZE=4096\nNUMBER(phys_base)=-1048576\n"
TEXT = 0xFFFFFFFF81000000


def note(name, kind, desc):
    pad = lambda b: b + bytes(-len(b) % 4)  # noqa: E731
    return struct.pack("<III", len(name) + 1, len(desc), kind) + pad(name + b"\0") + pad(desc)


CPU_NOTES = [note(b"CORE", 1, bytes([cpu]) * 0x150) for cpu in range(2)]
INFO_NOTE = note(b"VMCOREINFO", 0, INFO)


def put(machine, addr, data):
    machine.ram[addr : addr + len(data)] = data


def build(machine, loads, notes=(*CPU_NOTES, INFO_NOTE)):
    """An elfcorehdr at AT; loads: (vaddr, paddr, offset, size)."""
    headers = []
    for i, raw in enumerate(notes):
        place = AT + 0x10000 + i * 0x1000
        # As Linux does it: the area is larger than the note and ends in zeroes.
        put(machine, place, raw + bytes(64))
        headers.append(struct.pack("<IIQQQQQQ", 4, 0, place, 0, place, 1024, 1024, 4))
    for vaddr, paddr, offset, size in loads:
        headers.append(struct.pack("<IIQQQQQQ", 1, 7, offset, vaddr, paddr, size, size, 0))
    put(machine, AT, ehdr(len(headers)) + b"".join(headers))


def ehdr(phnum, phentsize=56, machine=62, type=4, magic=b"\x7fELF"):
    return struct.pack(
        "<4sBBBB8sHHIQQQIHHHHHH",
        magic, 2, 1, 1, 0, bytes(8), type, machine, 1, 0, 64, 0, 0, 64, phentsize, phnum, 0, 0, 0,
    )  # fmt: skip


LOADS = [
    (TEXT, 0x1000000, 0x1000000, 0x200000),
    (0xFFFF888000001000, 0x1000, 0x900000, 0x9EC00),  # low 640 KiB, read from its backup
    (0xFFFF888000100000, 0x100000, 0x100000, 0x700000),
    (0xFFFF888000C00000, 0xC00000, 0xC00000, 0xF40000),
]


def parsed(machine, loads=LOADS, hole=(0, 0)):
    build(machine, loads)
    core = elfcore.read(AT, hole)
    raw = bytes(elfcore.header(core))
    return core, raw, ELFFile(io.BytesIO(raw + bytes(core.size - len(raw))))


def test_the_vmcore_is_an_elf_core_whose_first_header_is_the_only_note(machine):
    core, raw, elf = parsed(machine)
    assert elf["e_type"] == "ET_CORE"
    kinds = [s["p_type"] for s in elf.iter_segments()]
    assert kinds == ["PT_NOTE"] + ["PT_LOAD"] * (len(core.text) + len(core.ranges))
    assert all(s["p_align"] == 0 for s in elf.iter_segments())
    assert len(raw) == core.data
    assert core.data % 4096 == 0


def test_notes_are_merged_without_their_padding(machine):
    core, _, elf = parsed(machine)
    assert core.notes == CPU_NOTES[0] + CPU_NOTES[1] + INFO_NOTE
    names = [n["n_name"] for n in next(elf.iter_segments()).iter_notes()]
    assert names == ["CORE", "CORE", "VMCOREINFO"]
    assert core.info("OSRELEASE") == "6.1.0-44"
    assert core.info("NUMBER(phys_base)") == "-1048576"
    assert core.info("SYMBOL(none)") == ""


def test_ram_is_read_at_p_offset_and_recorded_at_p_paddr(machine):
    core, _, elf = parsed(machine)
    low = next(r for r in core.ranges if r.paddr == 0x1000)
    assert low.frames()[:2] == (0x900, 0x9F)
    found = [s for s in elf.iter_segments() if s["p_paddr"] == 0x1000]
    assert [(s["p_vaddr"], s["p_filesz"]) for s in found] == [(0xFFFF888000001000, 0x9EC00)]


def test_ranges_follow_each_other_on_whole_pages_and_fill_the_vmcore(machine):
    core, _, elf = parsed(machine)
    at = core.data
    for area in core.ranges:
        _, pages, offset = area.frames()
        assert offset == at
        at += pages * 4096
    assert at == core.size
    for segment in elf.iter_segments("PT_LOAD"):
        assert segment["p_offset"] + segment["p_filesz"] <= core.size


def test_the_kernel_s_mapping_shares_the_bytes_of_its_ram_range(machine):
    core, _, _ = parsed(machine)
    assert [(t.vaddr, t.place()) for t in core.text] == [(TEXT, core.ranges[0].offset)]


def test_the_kernel_s_own_pages_come_first_and_the_rest_is_complete(machine):
    core, _, _ = parsed(machine)
    kernel = core.ranges[0]
    assert (kernel.paddr, kernel.size, kernel.offset) == (0x1000000, 0x200000, core.data)
    spans = sorted((r.paddr, r.paddr + r.size) for r in core.ranges)
    assert spans == [
        (0x1000, 0x9FC00),
        (0x100000, 0x800000),
        (0xC00000, 0x1000000),
        (0x1000000, 0x1200000),
        (0x1200000, 0x1B40000),
    ]
    assert all(r.vaddr - r.paddr == 0xFFFF888000000000 for r in core.ranges)


def test_a_range_that_begins_within_a_page_keeps_its_place_in_the_page(machine):
    core, _, _ = parsed(machine, [(0, 0x100800, 0x100800, 0x1000)])
    assert core.ranges[0].frames() == (0x100, 2, core.data)
    assert core.ranges[0].offset == core.data + 0x800


def test_our_own_memory_is_left_out(machine):
    core, _, _ = parsed(machine, [(0xFFFF888000100000, 0x100000, 0x100000, 0xF00000)], HOLE)
    spans = [(r.source, r.paddr, r.vaddr, r.size) for r in core.ranges]
    assert spans == [
        (0x100000, 0x100000, 0xFFFF888000100000, 0x700000),
        (0xC00000, 0xC00000, 0xFFFF888000C00000, 0x400000),
    ]


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (b"\xff" * 64, "no ELF core header"),
        (bytes(64), "no ELF core header"),
        (ehdr(1, magic=b"\x7fELG"), "no ELF core header"),
        (ehdr(1, type=2), "no ELF core header"),
        (ehdr(1, machine=3), "no ELF core header"),
        (ehdr(0), "phnum 0"),
        (ehdr(65535), "phnum 65535"),
        (ehdr(1, phentsize=32), "phentsize 32"),
    ],
)
def test_what_is_no_elf_core_header_is_refused(machine, header, message):
    put(machine, AT, header)
    with pytest.raises(CoreError, match=message):
        elfcore.read(AT, (0, 0))


def test_no_memory_and_no_vmcoreinfo_are_refused(machine):
    build(machine, [])
    with pytest.raises(CoreError, match="names no memory"):
        elfcore.read(AT, (0, 0))
    build(machine, LOADS, CPU_NOTES)
    with pytest.raises(CoreError, match="no VMCOREINFO"):
        elfcore.read(AT, (0, 0))


def test_a_segment_where_no_memory_can_be_is_refused(machine):
    build(machine, [(0, 1 << 50, 1 << 50, 4096)])
    with pytest.raises(CoreError, match="are no memory"):
        elfcore.read(AT, (0, 0))


def test_a_damaged_note_is_left_out_and_does_not_cost_the_dump(machine):
    build(machine, LOADS, [struct.pack("<III", 5, 5000, 1) + b"CORE\0", *CPU_NOTES, INFO_NOTE])
    core = elfcore.read(AT, (0, 0))
    assert core.notes == CPU_NOTES[0] + CPU_NOTES[1] + INFO_NOTE
    assert "is damaged" in core.problems[0]


def test_the_hypervisor_s_own_vmcoreinfo_is_not_the_kernel_s(machine):
    other = note(b"VMCOREINFO_XEN", 0, b"XEN=1\n")
    build(machine, LOADS, [INFO_NOTE, other])
    assert elfcore.read(AT, (0, 0)).info("OSRELEASE") == "6.1.0-44"


def test_a_kernel_mapping_over_two_ranges_is_recorded_in_two_parts(machine):
    loads = [(TEXT, 0x300000, 0x300000, 0x300000), (0, 0x100000, 0x100000, 0x300000)]
    core, _, _ = parsed(machine, [*loads, (0, 0x400000, 0x400000, 0x300000)])
    assert [(t.vaddr, t.paddr, t.size, t.place()) for t in core.text] == [
        (TEXT, 0x300000, 0x100000, core.data),
        (TEXT + 0x100000, 0x400000, 0x200000, core.data + 0x100000),
    ]


@pytest.mark.parametrize("addr", [64, 0xFF8, 1 << 43, (1 << 44) - 32])
def test_an_address_where_no_memory_can_be_is_refused(machine, addr):
    with pytest.raises(CoreError, match="elfcorehdr"):
        elfcore.read(addr, (0, 0))
