"""The ELF vmcore: a dump format that keeps every page as it was.

Used by the dump agent, which asks it what it needs and then lets it write to a sink (dump.py says
what both promise). The file is as Linux's own /proc/vmcore, with these rules: all notes are one
PT_NOTE, which is program header 0 for the crash utility; the kernel's own pages, its log among
them, are stored first, so that a dump that ends early still says why the kernel crashed; their
bytes are stored once, for the kernel's mapping of itself and for the range of RAM they lie in.
Nothing is kept for each range: the headers are counted, then written, then the ranges are.
Source: Linux fs/proc/vmcore.c; kexec-tools kexec/crashdump-elf.c.
"""

import hw
from xenpv.abi import PAGE_SIZE

from . import elf
from .errors import CoreError


class Kernel:
    """The pages of one mapping that the kernel has of itself, at the start of the stored bytes.

    Args:
        area: oldmem.Range.
        place: where its first page is, from the start of the stored bytes.
    """

    def __init__(self, area, place):
        first, count = area.frames()
        self.area = area
        self.start = first * PAGE_SIZE
        self.end = self.start + count * PAGE_SIZE
        self.place = place

    def split(self, area):
        """Split a range of RAM. Returns (the part that these pages hold or None, the rest)."""
        size = area.size
        a = min(max(self.start - area.source, 0), size)
        b = min(max(self.end - area.source, a), size)
        if a == b or area.source - area.paddr != self.area.source - self.area.paddr:
            return None, [area]
        rest = [area.part(c, d) for c, d in ((0, a), (b, size)) if c < d]
        return area.part(a, b), rest


class Vmcore:
    """The vmcore of a crashed kernel, ready to be written.

    Args:
        memory: oldmem.OldMemory.

    Attributes:
        size: bytes that it takes on the target.
        buffer: pages that the sink needs for what it is given as bytes.
        ranges: number of pieces of memory it stores.

    Raises CoreError where it would have more program headers than its readers take.
    """

    buffer = 4

    def __init__(self, memory):
        self.memory = memory
        self.ranges = 0
        self._kernel = []
        at = 0
        for area in memory.kernel:
            self._kernel.append(Kernel(area, at))
            at += area.frames()[1] * PAGE_SIZE
        phnum = 1
        stored = 0
        for area, _, is_stored in self._loads():
            phnum += 1
            if is_stored:
                self.ranges += 1
                stored += area.frames()[1] * PAGE_SIZE
        if phnum > elf.PHNUM_MAX:
            raise CoreError(
                "the crashed kernel's memory is in too many pieces: %d program headers, readers"
                " take %d" % (phnum, elf.PHNUM_MAX)
            )
        self._phnum = phnum
        self._notes = elf.EHDR_SIZE + phnum * elf.PHDR_SIZE
        self._notes_size = sum([size for _, size in memory.notes])
        end = self._notes + self._notes_size
        self._data = (end + PAGE_SIZE - 1) // PAGE_SIZE * PAGE_SIZE
        self.size = self._data + stored

    async def write(self, sink):
        """Write the whole file. sink: as dump.py describes it. Raises what the sink raises."""
        await sink.put(elf.core_header(self._phnum))
        size = self._notes_size
        await sink.put(elf.program_header(elf.PT_NOTE, self._notes, 0, 0, size))
        for area, place, _ in self._loads():
            at = self._data + place
            header = elf.program_header(elf.PT_LOAD, at, area.vaddr, area.paddr, area.size)
            await sink.put(header)
        for address, size in self.memory.notes:
            await sink.put(hw.mem(address, size))
        for area, _, is_stored in self._loads():
            if is_stored:
                gfn, count = area.frames()
                await sink.frames(gfn, count)

    def _loads(self):
        """Yield (range, place, whether its bytes are stored for it) of each PT_LOAD, in order.

        place: where its first byte is, from the start of the stored bytes.
        """
        at = 0
        for kernel in self._kernel:
            yield kernel.area, at + kernel.area.source % PAGE_SIZE, True
            at += kernel.end - kernel.start
        for area in self.memory.ranges():
            for part, kernel in self._split(area)[0]:
                yield part, kernel.place + part.source - kernel.start, False
        for area in self.memory.ranges():
            for part in self._split(area)[1]:
                yield part, at + part.source % PAGE_SIZE, True
                at += part.frames()[1] * PAGE_SIZE

    def _split(self, area):
        """Split a range of RAM: ([(part, the Kernel that stores it)], [parts stored by none])."""
        shared = []
        rest = [area]
        for kernel in self._kernel:
            left = []
            for piece in rest:
                part, others = kernel.split(piece)
                if part is not None:
                    shared.append((part, kernel))
                left += others
            rest = left
        return shared, rest
