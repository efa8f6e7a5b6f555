"""The stacks in use: found by the notes and page tables, bounded whatever these hold."""

import random
import struct

import pytest
from fixtures.dyingkernel import IRQ_STACK, MIB, PAGE, TASK_STACK, DyingKernel

import hw
from pvfw import stacks
from pvfw.oldmem import Range
from pvfw.pagetables import PageTables
from pvfw.physmem import PhysicalMemory
from pvfw.stacks import PAGES_MAX, Stacks
from pvfw.vmcoreinfo import Vmcoreinfo
from pvxen.elfcorehdr import note

SIZE = 8 * MIB
BASE = 4 * MIB
NOTES = 2 * MIB
RSP = 112 + 19 * 8
DIRECT_MAP = 0xFFFF888000000000


class Machine:
    """The RAM of a kernel that died, and what of it the page tables say."""

    def __init__(self):
        self.ram = bytearray(SIZE)
        self.kernel = DyingKernel(self.ram, BASE, SIZE // PAGE)
        text = self.kernel.notes[2][24:].decode("latin-1")
        self.info = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)

    def pages(self, *notes, crashed=0):
        """The frames that are found by the notes."""
        places, at = [], NOTES
        for raw in notes:
            self.ram[at : at + len(raw)] = raw
            places.append((at, len(raw)))
            at += -(-len(raw) // PAGE) * PAGE
        with hw.attached(self):
            memory = PhysicalMemory(lambda: iter([Range(0, 0, 0, SIZE)]))
            tables = PageTables(memory, Vmcoreinfo(lambda key: self.info.get(key, "")))
            return [pfn for _, pfn in Stacks(memory, tables, places, crashed).pages()]

    def put(self, frame, at, *values):
        struct.pack_into(f"<{len(values)}Q", self.ram, frame * PAGE + at, *values)


@pytest.fixture
def machine():
    return Machine()


def cpu(rsp, name=b"CORE", kind=1, size=336):
    raw = bytearray(size)
    struct.pack_into("<Q", raw, RSP, rsp)
    return note(name, kind, bytes(raw))


def test_a_tasks_stack_is_found_whole(machine):
    assert machine.pages(cpu(TASK_STACK + 0x2E40)) == machine.kernel.stacks[4:]


def test_an_interrupts_stack_leads_to_that_of_its_task(machine):
    assert machine.pages(cpu(IRQ_STACK + 0x3F00)) == machine.kernel.stacks


def test_an_exceptions_stack_leads_to_the_one_before(machine):
    machine.put(machine.kernel.stacks[3], PAGE - 16, TASK_STACK + 0x3000, 0x18)
    assert machine.pages(cpu(IRQ_STACK + 0x3F00)) == machine.kernel.stacks


def test_the_crashed_cpu_comes_first(machine):
    found = machine.pages(cpu(TASK_STACK + 8), cpu(IRQ_STACK + 0x3000), crashed=1)
    assert found[:4] == machine.kernel.stacks[:4]
    assert found[-4:] == machine.kernel.stacks[4:]


def test_a_stack_in_the_direct_map_is_the_16_kib_around_it_and_no_less(machine):
    found = machine.pages(cpu(DIRECT_MAP + 0x6000))
    assert found[:4] == [4, 5, 6, 7]


def test_stacks_that_lead_to_each_other_end(machine):
    machine.put(machine.kernel.stacks[7], PAGE - 8, IRQ_STACK + 8)
    assert machine.pages(cpu(IRQ_STACK + 8)) == machine.kernel.stacks


@pytest.mark.parametrize(
    "rsp", [0, 8, 0x7FFD00000000, TASK_STACK - 1, TASK_STACK + 0x4000, (1 << 63) + 8, (1 << 64) - 8]
)
def test_a_stack_pointer_that_is_none_gives_nothing(machine, rsp):
    assert machine.pages(cpu(rsp)) == []


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\xff" * 400,
        cpu(TASK_STACK, name=b"XEN"),
        cpu(TASK_STACK, kind=2),
        cpu(TASK_STACK)[:340],
        note(b"CORE", 1, struct.pack("<Q", TASK_STACK) * 41),
    ],
    ids=["empty", "ones", "other name", "other kind", "cut", "short"],
)
def test_a_note_that_is_none_of_a_cpu_gives_nothing(machine, raw):
    assert machine.pages(raw) == []


def test_the_pages_are_bounded(machine, monkeypatch):
    monkeypatch.setattr(stacks, "PAGES_MAX", 5)
    assert len(machine.pages(*[cpu(TASK_STACK)] * 3)) == 5
    assert PAGES_MAX * PAGE <= 8 * MIB


@pytest.mark.parametrize("seed", range(200))
def test_whatever_notes_stacks_and_tables_hold_only_ram_is_found(seed):
    machine = Machine()
    draw = random.Random(seed)
    words = [draw.getrandbits(64), IRQ_STACK, TASK_STACK, DIRECT_MAP, DIRECT_MAP + SIZE, 1 << 63]
    words += [(1 << 64) - 1, (1 << 64) - PAGE, 0xFFFFFFFF80000000]
    for _ in range(40):
        at = BASE + draw.randrange(0, MIB, 8)
        value = draw.choice(words) + draw.randrange(0, 0x8000, 8)
        struct.pack_into("<Q", machine.ram, at, value & ((1 << 64) - 1))
    # The tables, which are among the first pages.
    for _ in range(draw.randrange(3)):
        machine.ram[BASE + draw.randrange(16 * PAGE)] ^= 1 << draw.randrange(8)
    rsps = [draw.choice(words) + draw.randrange(0, 0x8000, 8) for _ in range(8)]
    found = machine.pages(*[cpu(rsp & ((1 << 64) - 1)) for rsp in rsps])
    assert all(0 <= pfn < SIZE // PAGE for pfn in found)
    assert len(found) <= 8 * 4 * 8
