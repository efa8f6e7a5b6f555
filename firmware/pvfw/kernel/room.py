"""Free memory for a kernel and what goes with it.

Used before anything is read from a disk. Rules: only RAM of the loader's map, below 4 GiB, where
the jump's identity map ends; nothing of ours, nothing twice. Whatever a kernel asks for, the answer
is room or None.
Units: bytes; addresses are physical.
"""

from xenpv import abi

PAGE_SIZE = abi.PAGE_SIZE
RAM = 1
END = 1 << 32
# Below are the tables of ACPI, interrupt vectors and the like.
BEGIN = 1 << 20


class Room:
    """The RAM that is free.

    Args:
        memmap: (address, bytes, type) of each range, as of hw.boot().
        taken: (first, end) of what is not free.

    Attributes: free, a list of (first, end), ascending, whole pages.
    """

    def __init__(self, memmap, taken):
        self.free = []
        for address, size, kind in sorted(memmap):
            if kind == RAM:
                first = (max(address, BEGIN) + PAGE_SIZE - 1) // PAGE_SIZE * PAGE_SIZE
                end = min(address + size, END) // PAGE_SIZE * PAGE_SIZE
                if first < end:
                    self.free.append((first, end))
        # Ranges that overlap, or are something else as well, count for what is worst.
        for address, size, kind in memmap:
            if kind != RAM:
                self._take(address, address + size)
        self._merge()
        for first, end in taken:
            self._take(first, end)

    def _merge(self):
        merged = []
        for first, end in self.free:
            if merged and first <= merged[-1][1]:
                merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
            else:
                merged.append((first, end))
        self.free = merged

    def _take(self, first, end):
        first = first // PAGE_SIZE * PAGE_SIZE
        end = (end + PAGE_SIZE - 1) // PAGE_SIZE * PAGE_SIZE
        left = []
        for begin, stop in self.free:
            if begin < min(first, stop):
                left.append((begin, min(first, stop)))
            if max(end, begin) < stop:
                left.append((max(end, begin), stop))
        self.free = left

    def at(self, address, size):
        """Take memory at an address. Returns whether it was free."""
        for first, end in self.free:
            if first <= address and address + size <= end:
                self._take(address, address + size)
                return True
        return False

    def low(self, size, alignment):
        """Take the lowest memory there is. Returns its address, or None."""
        for first, _ in self.free:
            address = (first + alignment - 1) // alignment * alignment
            if self.at(address, size):
                return address
        return None

    def high(self, size, limit):
        """Take the highest whole pages below `limit`. Returns the address, or None."""
        size = (size + PAGE_SIZE - 1) // PAGE_SIZE * PAGE_SIZE
        for _, end in reversed(self.free):
            address = (min(end, limit) - size) // PAGE_SIZE * PAGE_SIZE
            if address >= BEGIN and self.at(address, size):
                return address
        return None
