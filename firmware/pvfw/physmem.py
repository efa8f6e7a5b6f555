"""The crashed kernel's RAM by its own physical addresses, for what follows its pointers.

Used by the page filter and the page tables. The rule: a pointer may be damaged, so an address is
used only where it lies in RAM that elfcorehdr names; the low 640 KiB are read from their copy. The
ranges are not kept, but for the few that were met last.
"""

import hw

from .errors import CoreError

RANGES_KEPT = 8


class PhysicalMemory:
    """The RAM of a crashed kernel.

    Args:
        ranges: function that yields the ranges of RAM, oldmem.Range.
    """

    def __init__(self, ranges):
        self._ranges = ranges
        self._met = []

    def at(self, paddr, size):
        """Return the address to read `size` bytes at, which lie there in one piece.

        Raises CoreError where they are not all RAM.
        """
        for area in self._met:
            if area.paddr <= paddr and paddr + size <= area.paddr + area.size:
                return area.source + paddr - area.paddr
        for area in self._ranges():
            if area.paddr <= paddr and paddr + size <= area.paddr + area.size:
                if len(self._met) == RANGES_KEPT:
                    self._met.pop(0)
                self._met.append(area)
                return area.source + paddr - area.paddr
        raise CoreError("0x%x bytes at 0x%x are not in RAM" % (size, paddr))

    def read(self, paddr, size):
        """Return `size` bytes. Raises CoreError where they are not all RAM."""
        return bytes(hw.mem(self.at(paddr, size), size))
