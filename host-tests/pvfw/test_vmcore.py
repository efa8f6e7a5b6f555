"""The ELF vmcore: its header as readers want it, each byte of memory stored, the kernel's first."""

import io

import pytest
from elftools.elf.elffile import ELFFile

import hw
from pvfw.elf import PHNUM_MAX
from pvfw.errors import CoreError
from pvfw.oldmem import OldMemory
from pvfw.vmcore import Vmcore
from pvxen.elfcorehdr import DIRECT_MAP, KERNEL_TEXT, build, cpu_notes, vmcoreinfo
from pvxen.machine import Machine

AT = 0x200000
NOTES_AT = 0x600000
PAGE = 4096
NOTES = [*cpu_notes(2), vmcoreinfo(b"OSRELEASE=6.1.0-44\n")]
LOADS = [
    (KERNEL_TEXT, 0x1000000, 0x1000000, 0x200000),
    (DIRECT_MAP + 0x1000, 0x1000, 0x900000, 0x9EC00),  # low 640 KiB, read from its backup
    (DIRECT_MAP + 0x100000, 0x100000, 0x100000, 0x700000),
    (DIRECT_MAP + 0xC00000, 0xC00000, 0xC00000, 0xF40000),
]


class Sink:
    """Keeps what it is given: the bytes of the file, and (gfn, count) of the frames among them."""

    def __init__(self, machine):
        self._ram = machine.ram
        self.data = bytearray()
        self.given = []

    async def put(self, data):
        self.data += data

    async def frames(self, gfn, count):
        self.data += bytes(-len(self.data) % PAGE)
        self.given.append((gfn, count))
        part = self._ram[gfn * PAGE : (gfn + count) * PAGE]
        self.data += bytes(part).ljust(count * PAGE, b"\0")


class Written:
    """A vmcore written to a Sink. elf: the file, read; loads: its PT_LOADs."""

    def __init__(self, machine, loads=LOADS, notes=NOTES):
        build(machine.ram, AT, loads, notes)
        self.ram = bytes(machine.ram)
        self.vmcore = Vmcore(OldMemory(AT, (0, 0)))
        self.sink = Sink(machine)
        work = self.vmcore.write(self.sink)
        with pytest.raises(StopIteration):
            work.send(None)
        self.elf = ELFFile(io.BytesIO(bytes(self.sink.data)))
        self.loads = list(self.elf.iter_segments("PT_LOAD"))

    def placed(self, vaddr):
        """The one segment that begins at a virtual address."""
        (found,) = [segment for segment in self.loads if segment["p_vaddr"] == vaddr]
        return found


@pytest.fixture
def machine():
    machine = Machine(32 << 20)
    for at in range(0, 32 << 20, PAGE):
        machine.ram[at : at + 8] = at.to_bytes(8, "little")
    hw.attach(machine)
    return machine


def test_the_file_is_as_long_as_was_promised(machine):
    written = Written(machine)
    assert len(written.sink.data) == written.vmcore.size


def test_the_first_program_header_is_the_only_note_and_holds_all_notes(machine):
    elf = Written(machine).elf
    assert elf["e_type"] == "ET_CORE"
    kinds = [segment["p_type"] for segment in elf.iter_segments()]
    assert kinds == ["PT_NOTE"] + ["PT_LOAD"] * (len(kinds) - 1)
    note = next(elf.iter_segments())
    assert note.data() == b"".join(NOTES)
    assert [n["n_name"] for n in note.iter_notes()] == ["CORE", "CORE", "VMCOREINFO"]


def test_no_program_header_has_an_alignment(machine):
    assert all(segment["p_align"] == 0 for segment in Written(machine).elf.iter_segments())


def test_every_range_has_its_bytes_where_its_header_says(machine):
    written = Written(machine)
    found = {}
    for segment in written.loads:
        vaddr, paddr, offset, _ = next(
            load for load in LOADS if load[0] <= segment["p_vaddr"] < load[0] + load[3]
        )
        skip = segment["p_vaddr"] - vaddr
        assert segment["p_paddr"] == paddr + skip
        source = offset + skip
        assert segment.data() == written.ram[source : source + segment["p_filesz"]]
        found[vaddr] = found.get(vaddr, 0) + segment["p_filesz"]
    assert found == {load[0]: load[3] for load in LOADS}


def test_no_frame_is_stored_twice(machine):
    frames = [
        gfn for first, count in Written(machine).sink.given for gfn in range(first, first + count)
    ]
    assert len(set(frames)) == len(frames)


def test_the_kernel_s_own_pages_are_stored_first(machine):
    written = Written(machine)
    assert written.sink.given[0] == (0x1000, 0x200)
    text = written.placed(KERNEL_TEXT)
    direct = written.placed(DIRECT_MAP + 0x1000000)
    assert text["p_offset"] == direct["p_offset"] == min(load["p_offset"] for load in written.loads)
    assert text["p_filesz"] == direct["p_filesz"] == 0x200000


def test_a_kernel_that_begins_within_a_page_has_its_whole_pages_stored(machine):
    loads = [(KERNEL_TEXT, 0x300123, 0x300123, 0x2345), (DIRECT_MAP, 0x0, 0x0, 0x700000)]
    written = Written(machine, loads)
    assert written.sink.given == [(0x300, 3), (0, 0x300), (0x303, 0x3FD)]
    assert written.placed(KERNEL_TEXT).data() == written.ram[0x300123:0x302468]
    assert written.placed(DIRECT_MAP + 0x300000).data() == written.ram[0x300000:0x303000]


def test_a_range_that_begins_within_a_page_keeps_its_place_in_the_page(machine):
    written = Written(machine, [(0, 0x100800, 0x100800, 0x1000)])
    assert written.sink.given == [(0x100, 2)]
    (segment,) = written.loads
    assert segment["p_offset"] % PAGE == 0x800
    assert segment.data() == written.ram[0x100800:0x101800]


@pytest.mark.parametrize(
    ("ram", "given"),
    [
        ((DIRECT_MAP + 0x100000, 0x100000, 0x100000, 0x100000), [(0x200, 0x100), (0x100, 0x100)]),
        ((DIRECT_MAP + 0x100000, 0x100000, 0x100000, 0x180000), [(0x200, 0x100), (0x100, 0x100)]),
        ((DIRECT_MAP + 0x200000, 0x200000, 0x800000, 0x100000), [(0x200, 0x100), (0x800, 0x100)]),
    ],
    ids=["in no range", "half in a range", "in a range read elsewhere"],
)
def test_what_the_kernel_maps_is_stored_wherever_it_lies(ram, given, machine):
    written = Written(machine, [(KERNEL_TEXT, 0x200000, 0x200000, 0x100000), ram])
    assert written.sink.given == given
    assert written.placed(KERNEL_TEXT).data() == written.ram[0x200000:0x300000]
    total = sum(s["p_filesz"] for s in written.loads if s["p_vaddr"] != KERNEL_TEXT)
    assert total == ram[3]


def test_memory_without_a_virtual_address_is_stored(machine):
    written = Written(machine, [(2**64 - 1, 0x100000, 0x100000, 0x200000)])
    (segment,) = written.loads
    assert (segment["p_vaddr"], segment["p_paddr"]) == (0, 0x100000)
    assert segment.data() == written.ram[0x100000:0x300000]


def scattered(count):
    """So many ranges of a page that cannot be joined."""
    return [(0, 0x1000000 + 0x2000 * i, 0x1000000, 0x1000) for i in range(count)]


class Counter:
    """Counts the bytes it is given."""

    def __init__(self):
        self.size = 0

    async def put(self, data):
        self.size += len(data)

    async def frames(self, gfn, count):
        self.size += -self.size % PAGE + count * PAGE


def test_as_many_ranges_as_readers_take_are_written(machine):
    build(machine.ram, AT, scattered(PHNUM_MAX - 1), NOTES, NOTES_AT)
    vmcore, sink = Vmcore(OldMemory(AT, (0, 0))), Counter()
    with pytest.raises(StopIteration):
        vmcore.write(sink).send(None)
    assert sink.size == vmcore.size
    assert vmcore.ranges == PHNUM_MAX - 1


def test_more_ranges_than_readers_take_are_refused(machine):
    build(machine.ram, AT, scattered(PHNUM_MAX), NOTES, NOTES_AT)
    with pytest.raises(CoreError, match="too many pieces: 16385 program headers, readers take"):
        Vmcore(OldMemory(AT, (0, 0)))


def test_a_mapping_of_the_kernel_counts_for_each_range_it_is_in(machine):
    # Each range is recorded twice: as RAM, and as what the kernel's mapping holds of it.
    loads = [(KERNEL_TEXT, 0x400000, 0x400000, 0x100000)]
    loads += [(0, 0x400000 + 0x1000 * i, 0x400000 + 0x1000 * i, 0x800) for i in range(16)]
    written = Written(machine, loads)
    assert written.elf.num_segments() == 2 + 16
    assert written.sink.given == [(0x400, 0x100)]
