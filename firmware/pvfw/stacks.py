"""The stacks that were in use when the kernel crashed: the pages that they lie in.

Used by the stream, which has them before other pages. A CPU's note has its stack pointer; the stack
is the 16 KiB that hold it (Linux aligns those of tasks), as far as they are mapped, since unmapped
pages guard both ends. An interrupt or an exception has a stack of its own, whose last words say
where the stack before it is: the very last, of an interrupt's; the one before, of an exception's.
The rules: notes and stacks may hold anything, so a value is followed only as far as the page tables
and RAM go, and everything is counted; a page may come twice.
Source: Linux arch/x86/include/asm/page_64_types.h, irq_stack.h, ptrace.h; include/linux/elfcore.h.
"""

import struct

import hw
from xenpv.abi import PAGE_SIZE

from . import elf
from .errors import CoreError

NT_PRSTATUS = 1
CORE = b"CORE\0"
# In struct elf_prstatus; pr_reg has 27 registers, from byte 112 on.
RSP_AT = 112 + 19 * 8
PRSTATUS_SIZE = 336
KERNEL = 1 << 63
STACK_PAGES = 4
STACK_SIZE = STACK_PAGES * PAGE_SIZE
# Bytes from a stack's end down to the word that may point into the one before.
LINKS = (8, 16)
# Stacks of one CPU: a task's, an interrupt's, two exceptions'.
HOPS_MAX = 4
PAGES_MAX = 2048


class Stacks:
    """The stacks of the CPUs.

    Args:
        memory: physmem.PhysicalMemory.
        tables: pagetables.PageTables.
        notes: list of (physical address, bytes) of notes, as oldmem.OldMemory has them.
        first: number of the CPU whose stacks come first.
    """

    def __init__(self, memory, tables, notes, first):
        self._memory = memory
        self._tables = tables
        self._notes = notes
        self._crashed = first

    def pages(self):
        """Yield (frame to read it at, frame where it was) of each page, at most PAGES_MAX."""
        left = PAGES_MAX
        for pointer in self._pointers():
            for page in self._chain(pointer):
                if left == 0:
                    return
                left -= 1
                yield page

    def _pointers(self):
        """Yield the stack pointer of each CPU."""
        for is_first in (True, False):
            for number, pointer in enumerate(self._of_notes()):
                if (number == self._crashed) == is_first:
                    yield pointer

    def _of_notes(self):
        for address, size in self._notes:
            raw = bytes(hw.mem(address, size))
            at = 0
            while at + elf.NOTE_SIZE <= size:
                namesz, descsz, kind = struct.unpack_from(elf.NOTE, raw, at)
                name = raw[at + elf.NOTE_SIZE : at + elf.NOTE_SIZE + len(CORE)]
                desc = at + elf.NOTE_SIZE + (namesz + 3) // 4 * 4
                if kind == NT_PRSTATUS and name == CORE and desc + PRSTATUS_SIZE <= size:
                    yield struct.unpack_from("<Q", raw, desc + RSP_AT)[0]
                at = desc + (descsz + 3) // 4 * 4

    def _chain(self, pointer):
        """Yield the pages of the stack that a pointer points into, and of those before it."""
        wanted = [pointer]
        seen = []
        while wanted and len(seen) < HOPS_MAX:
            pointer = wanted.pop(0)
            begin, end = self._extent(pointer)
            if begin in seen:
                continue
            seen.append(begin)
            # MicroPython's range() takes no numbers of 64 bits.
            for number in range((end - begin) // PAGE_SIZE):
                frame = self._frame(begin + number * PAGE_SIZE)
                if frame is not None:
                    yield frame
            block = pointer // STACK_SIZE * STACK_SIZE + STACK_SIZE
            for top in (end, block) if block < end else (end,):
                wanted += [link for link in self._links(top) if not begin <= link < end]

    def _extent(self, pointer):
        """Return the (first address, end) of the pages of a stack; the same twice without any."""
        page = pointer // PAGE_SIZE * PAGE_SIZE
        if pointer < KERNEL or self._frame(page) is None:
            return page, page
        begin = end = page
        # An interrupt's stack need not be aligned, so its end is looked for.
        while end - page < STACK_SIZE and end < 1 << 64 and self._frame(end) is not None:
            end += PAGE_SIZE
        least = min(pointer // STACK_SIZE * STACK_SIZE, end - STACK_SIZE)
        while begin > least and self._frame(begin - PAGE_SIZE) is not None:
            begin -= PAGE_SIZE
        return begin, end

    def _links(self, top):
        """Return the kernel addresses in the last words below an address, a list."""
        found = []
        for back in LINKS:
            try:
                (link,) = struct.unpack("<Q", self._tables.read(top - back, 8))
            except CoreError:
                continue
            if link >= KERNEL and link % 8 == 0:
                found.append(link)
        return found

    def _frame(self, va):
        """Return (frame to read a page at, frame where it was), or None where it is not mapped."""
        try:
            paddr, _ = self._tables.locate(va)
            source = self._memory.at(paddr, PAGE_SIZE)
        except CoreError:
            return None
        if source % PAGE_SIZE or paddr % PAGE_SIZE:
            return None
        return source // PAGE_SIZE, paddr // PAGE_SIZE
