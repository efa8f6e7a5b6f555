"""The crashed kernel's page tables: its virtual addresses, read from physical memory.

Used to read what VMCOREINFO names, such as the kernel's log. The rules: the tables and all that
they point to may be damaged, so a walk has a fixed number of steps and each of its reads is checked
by the memory; the kernel's image is found without tables, since it lies in one piece at phys_base.
Source: AMD64 Architecture Programmer's Manual volume 2, 5.3; Linux arch/x86/include/asm/page_64.h.
"""

import struct

from .errors import CoreError

KERNEL_MAP = 0xFFFFFFFF80000000
# Bytes of the mapping of the kernel's image, where VMCOREINFO does not give them.
IMAGE_SIZE = 512 << 20
IMAGE_SIZE_MAX = 1 << 30
PRESENT = 1
LARGE = 1 << 7
ADDRESS = 0x000FFFFFFFFFF000
# The highest level whose entries can be leaves: those of 1 GiB.
LEAF_LEVEL_MAX = 3
LEAVES_KEPT = 16


class PageTables:
    """The virtual memory of a crashed kernel.

    Args:
        memory: its read(paddr, size) returns the bytes at a physical address, or raises CoreError.
        info: vmcoreinfo.Vmcoreinfo.

    Raises CoreError where VMCOREINFO does not say where the kernel's image is.
    """

    def __init__(self, memory, info):
        self._memory = memory
        self._phys_base = info.number("phys_base")
        if self._phys_base is None:
            raise CoreError("VMCOREINFO has no usable NUMBER(phys_base)")
        size = info.number("KERNEL_IMAGE_SIZE") or IMAGE_SIZE
        self._image_end = KERNEL_MAP + min(max(size, 0), IMAGE_SIZE_MAX)
        self._top = info.symbol("swapper_pg_dir") or info.symbol("init_top_pgt")
        self._levels = 5 if info.number("pgtable_l5_enabled") else 4
        # Where memory is encrypted, one bit of an entry's address says so.
        self._address = ADDRESS & ~(info.number("sme_mask") or 0)
        self._leaves = {}

    def read(self, va, size):
        """Read memory at a virtual address.

        Args:
            va: the address.
            size: bytes, which the caller bounds.

        Returns: `size` bytes.

        Raises CoreError where an address is not mapped, or its memory is not there.
        """
        parts = []
        while size > 0:
            paddr, run = self.locate(va)
            run = min(run, size)
            parts.append(bytes(self._memory.read(paddr, run)))
            va += run
            size -= run
        return b"".join(parts)

    def locate(self, va):
        """Find where a virtual address is.

        Returns: (physical address, number of bytes that lie there in one piece).

        Raises CoreError where it is not mapped.
        """
        if KERNEL_MAP <= va < self._image_end:
            return self._in_image(va), self._image_end - va
        paddr, shift = self._leaf(va)
        within = va & ((1 << shift) - 1)
        return paddr + within, (1 << shift) - within

    def _in_image(self, va):
        paddr = va - KERNEL_MAP + self._phys_base
        if paddr < 0:
            raise CoreError("0x%x is not mapped with phys_base %d" % (va, self._phys_base))
        return paddr

    def _leaf(self, va):
        """Return (physical address, log2 of the bytes) of the page that holds an address."""
        page = va >> 12
        leaf = self._leaves.get(page)
        if leaf is None:
            leaf = self._walk(va)
            if len(self._leaves) == LEAVES_KEPT:
                self._leaves = {}
            self._leaves[page] = leaf
        return leaf

    def _walk(self, va):
        # The bits above those that the tables translate repeat the highest of these.
        top_bit = 11 + 9 * self._levels
        if va >> top_bit not in (0, (1 << (64 - top_bit)) - 1):
            raise CoreError("0x%x is no address of a kernel" % va)
        if self._top is None or not KERNEL_MAP <= self._top < self._image_end:
            raise CoreError("VMCOREINFO has no usable SYMBOL(swapper_pg_dir)")
        table = self._in_image(self._top)
        for level in range(self._levels, 0, -1):
            shift = 3 + 9 * level
            raw = self._memory.read(table + (va >> shift & 511) * 8, 8)
            (entry,) = struct.unpack("<Q", raw)
            if not entry & PRESENT:
                break
            table = entry & self._address
            if level == 1 or (entry & LARGE and level <= LEAF_LEVEL_MAX):
                return table & ~((1 << shift) - 1), shift
            if entry & LARGE:
                break
        raise CoreError("0x%x is not mapped: its entry of level %d is 0x%x" % (va, level, entry))
