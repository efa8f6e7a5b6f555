"""Page tables of x86-64 in a guest's memory.

Xen's side walks them to find the arguments of hypercalls; a loader builds a map of the first GiB to
itself. The rule: tables and pages are looked for in the guest's RAM only.
Source: AMD64 Architecture Programmer's Manual volume 2, 5.3.
"""

from __future__ import annotations

import mmap
import struct

PAGE_SIZE = 4096
PRESENT_WRITABLE = 3
PRESENT = 1
LARGE = 1 << 7
ADDRESS = 0x000FFFFFFFFFF000
MAP_PAGES = 3  # pages of tables that map_first_gib() takes


def walk(ram: mmap.mmap, root: int, levels: int, address: int) -> int | None:
    """Translate a linear address as the CPU does.

    Args:
        ram: the guest's memory from physical address 0 on.
        root: physical address of the top table, as CR3 has it.
        levels: 4 or 5.
        address: linear address.

    Returns: the physical address, or None where nothing is mapped.
    """
    table = root & ADDRESS
    for level in range(levels, 0, -1):
        shift = 12 + 9 * (level - 1)
        at = table + (address >> shift & 511) * 8
        if at + 8 > len(ram):
            return None
        (entry,) = struct.unpack_from("<Q", ram, at)
        if not entry & PRESENT:
            return None
        if level == 1 or (level < 4 and entry & LARGE):
            within = (1 << shift) - 1
            return (entry & ADDRESS & ~within) | (address & within)
        table = entry & ADDRESS
    return None


def map_first_gib(ram: mmap.mmap, at: int) -> int:
    """Build 4-level tables that map the first GiB to itself, in MAP_PAGES pages from `at` on.

    Returns: the physical address of the top table, for CR3.
    """
    pointers, directory = at + PAGE_SIZE, at + 2 * PAGE_SIZE
    ram[at : at + MAP_PAGES * PAGE_SIZE] = bytes(MAP_PAGES * PAGE_SIZE)
    struct.pack_into("<Q", ram, at, pointers | PRESENT_WRITABLE)
    struct.pack_into("<Q", ram, pointers, directory | PRESENT_WRITABLE)
    large = [i << 21 | LARGE | PRESENT_WRITABLE for i in range(512)]
    struct.pack_into("<512Q", ram, directory, *large)
    return at
