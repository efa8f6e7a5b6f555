"""The crashed kernel's addresses: both depths of tables, each size of page, and damage to them."""

import struct

import pytest

from pvfw.errors import CoreError
from pvfw.pagetables import KERNEL_MAP, PageTables
from pvfw.vmcoreinfo import Vmcoreinfo

DIRECT_MAP = 0xFFFF888000000000
DIRECT_MAP_5 = 0xFF11000000000000
VMALLOC = 0xFFFFC90000000000
TOP = 0x2000
PAGE = 4096
LARGE = 1 << 7
INFO = {
    "SYMBOL(swapper_pg_dir)": f"{KERNEL_MAP + 0x1000000 + TOP:x}",
    "NUMBER(phys_base)": "-16777216",
    "NUMBER(KERNEL_IMAGE_SIZE)": "1073741824",
    "NUMBER(pgtable_l5_enabled)": "0",
    "NUMBER(sme_mask)": "0",
}


class Memory:
    """Physical memory, by its pages; those that were not written do not exist."""

    def __init__(self):
        self.pages = {}
        self._next = 0x100000

    def read(self, paddr, size):
        if paddr // PAGE not in self.pages or paddr % PAGE + size > PAGE:
            raise CoreError(f"no memory at {paddr:#x}")
        return bytes(self.pages[paddr // PAGE][paddr % PAGE : paddr % PAGE + size])

    def write(self, paddr, data):
        page = self.pages.setdefault(paddr // PAGE, bytearray(PAGE))
        page[paddr % PAGE : paddr % PAGE + len(data)] = data

    def entry(self, table, va, level, value):
        self.write(table + (va >> 3 + 9 * level & 511) * 8, struct.pack("<Q", value))

    def map(self, va, paddr, levels=4, leaf=1, bits=0):
        """Map the page of a level at `va`; bits: what each entry has besides."""
        table = TOP
        for level in range(levels, leaf, -1):
            at = table + (va >> 3 + 9 * level & 511) * 8
            below = struct.unpack("<Q", self.read(at, 8))[0] if at // PAGE in self.pages else 0
            if not below:
                below = self._next | 0x63 | bits
                self._next += PAGE
                self.entry(table, va, level, below)
            table = below & 0x7FFFFFFFF000 & ~bits
        self.entry(table, va, leaf, paddr | 0x63 | bits | (LARGE if leaf > 1 else 0))


def tables(memory, **more):
    info = {**INFO, **more}
    return PageTables(memory, Vmcoreinfo(lambda key: info.get(key, "")))


def test_the_kernel_s_image_lies_at_phys_base():
    assert tables(Memory()).locate(KERNEL_MAP + 0x1234567) == (0x234567, (1 << 30) - 0x1234567)
    up = {"NUMBER(phys_base)": "4096"}
    assert tables(Memory(), **up).locate(KERNEL_MAP)[0] == 4096


def test_an_address_of_the_image_below_physical_memory_is_none():
    with pytest.raises(CoreError, match="not mapped with phys_base -16777216"):
        tables(Memory()).locate(KERNEL_MAP + 0xFFFFFF)


def test_the_image_ends_where_the_kernel_says():
    memory = Memory()
    end = KERNEL_MAP + (512 << 20)
    memory.map(end, 0x9000)
    assert tables(memory, **{"NUMBER(KERNEL_IMAGE_SIZE)": "536870912"}).locate(end)[0] == 0x9000
    assert tables(memory, **{"NUMBER(KERNEL_IMAGE_SIZE)": ""}).locate(end)[0] == 0x9000
    assert tables(memory).locate(end)[0] == (512 << 20) - 0x1000000


@pytest.mark.parametrize(("levels", "base"), [(4, DIRECT_MAP), (5, DIRECT_MAP_5)])
@pytest.mark.parametrize("leaf", [1, 2, 3])
def test_a_page_of_each_size_is_found_with_4_and_5_levels(levels, base, leaf):
    memory = Memory()
    size = 1 << 3 + 9 * leaf
    va = base + 5 * size
    memory.map(va, 7 * size, levels, leaf)
    found = tables(memory, **{"NUMBER(pgtable_l5_enabled)": str(levels - 4)})
    assert found.locate(va + size - 9) == (8 * size - 9, 9)
    with pytest.raises(CoreError, match="not mapped"):
        found.locate(va + size)


def test_bits_of_a_large_page_s_entry_are_no_address():
    memory = Memory()
    memory.map(VMALLOC, 1 << 63 | 0x40001000, leaf=2)
    assert tables(memory).locate(VMALLOC + 5)[0] == 0x40000005


def test_the_encryption_bit_is_no_part_of_an_address():
    memory = Memory()
    memory.map(VMALLOC, 0x5000, bits=1 << 47)
    assert tables(memory, **{"NUMBER(sme_mask)": str(1 << 47)}).locate(VMALLOC)[0] == 0x5000


def test_a_read_goes_on_in_the_next_page_wherever_that_is():
    memory = Memory()
    memory.map(VMALLOC, 0x9000)
    memory.map(VMALLOC + PAGE, 0x5000)
    memory.write(0x9FFC, b"abcd")
    memory.write(0x5000, b"efgh")
    assert tables(memory).read(VMALLOC + PAGE - 4, 8) == b"abcdefgh"


def test_older_kernels_name_the_tables_otherwise():
    memory = Memory()
    memory.map(VMALLOC, 0x5000)
    names = {"SYMBOL(swapper_pg_dir)": "", "SYMBOL(init_top_pgt)": INFO["SYMBOL(swapper_pg_dir)"]}
    assert tables(memory, **names).locate(VMALLOC)[0] == 0x5000


# Damage.


@pytest.mark.parametrize("va", [0x800000000000, 0xFFFF7FFFFFFFFFFF, 1 << 64, 0xFF11000000000000])
def test_an_address_that_no_table_has_is_refused(va):
    with pytest.raises(CoreError, match="no address of a kernel"):
        tables(Memory()).locate(va)


def test_a_table_that_points_to_itself_ends_the_walk():
    memory = Memory()
    va = (1 << 64) - (1 << 47)
    for index in range(512):
        memory.write(TOP + index * 8, struct.pack("<Q", TOP | 1))
    assert tables(memory).locate(va) == (TOP, PAGE)


@pytest.mark.parametrize("levels", [4, 5])
def test_a_page_larger_than_the_cpu_has_is_no_mapping(levels):
    memory = Memory()
    memory.entry(TOP, VMALLOC, levels, 0x100000 | LARGE | 1)
    with pytest.raises(CoreError, match=f"level {levels}"):
        tables(memory, **{"NUMBER(pgtable_l5_enabled)": str(levels - 4)}).locate(VMALLOC)


def test_a_table_that_is_missing_is_told():
    memory = Memory()
    memory.entry(TOP, VMALLOC, 4, 0xABCDE000 | 1)
    with pytest.raises(CoreError, match="no memory at 0xabcde"):
        tables(memory).locate(VMALLOC)


@pytest.mark.parametrize("text", ["", "0", "ffff888000000000", "x", "-1", "1" * 40])
def test_tables_that_are_not_in_the_image_are_not_followed(text):
    with pytest.raises(CoreError, match=r"no usable SYMBOL\(swapper_pg_dir\)"):
        tables(Memory(), **{"SYMBOL(swapper_pg_dir)": text}).locate(VMALLOC)


@pytest.mark.parametrize("text", ["", "-", "--1", "1x", "0x10", "9" * 30, "-0"])
def test_a_kernel_that_does_not_say_where_it_is_is_refused(text):
    with pytest.raises(CoreError, match=r"no usable NUMBER\(phys_base\)"):
        tables(Memory(), **{"NUMBER(phys_base)": text})
