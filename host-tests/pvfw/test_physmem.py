"""The crashed kernel's RAM by its physical addresses: where it is read, and what is none."""

import pytest

import hw
from pvfw.errors import CoreError
from pvfw.oldmem import Range
from pvfw.physmem import RANGES_KEPT, PhysicalMemory


class Machine:
    def __init__(self):
        self.ram = bytearray(range(256)) * 64


@pytest.fixture(autouse=True)
def machine():
    machine = Machine()
    with hw.attached(machine):
        yield machine


def memory(*ranges):
    return PhysicalMemory(lambda: iter(ranges))


def test_memory_is_read_where_its_copy_is():
    low = Range(source=0x1000, paddr=0x500000, vaddr=0, size=0x100)
    assert memory(low).at(0x500010, 4) == 0x1010
    assert memory(low).read(0x500010, 4) == bytes([0x10, 0x11, 0x12, 0x13])


@pytest.mark.parametrize(
    ("paddr", "size"), [(0xFFF, 1), (0xFFF, 2), (0x1100, 1), (0x10FF, 2), (0, 1), (1 << 60, 8)]
)
def test_what_is_not_in_one_range_of_ram_is_refused(paddr, size):
    with pytest.raises(CoreError, match=f"0x{size:x} bytes at 0x{paddr:x} are not in RAM"):
        memory(Range(0x2000, 0x1000, 0, 0x100)).at(paddr, size)


def test_the_ranges_are_not_kept_but_for_a_few():
    passes = []

    def ranges():
        passes.append(1)
        for number in range(100):
            yield Range(number * 16, 0x10000 * number, 0, 16)

    ram = PhysicalMemory(ranges)
    for number in [*range(50), *range(50 - RANGES_KEPT, 50)]:
        assert ram.at(0x10000 * number, 16) == 16 * number
    assert len(passes) == 50
