"""The page filter: which pages of the crashed kernel a dump of some level has, and which first.

Used by the dump. It walks the crashed kernel's sections of memory (SPARSEMEM_EXTREME), finds their
struct pages by its page tables, and has C judge them, as many at once as lie in one piece; zero
pages are found later, where their content is read. The rules: the dump is no smaller than
makedumpfile's of the same level; whatever is missing, damaged or in doubt keeps its pages, and is
told; every walk is bounded; the memory this needs does not grow with RAM. So pages are not written
in order of their class by remembering them, but by walking the same ranges once for each of
`turns`: the walks share what is kept among them.
Source: Linux include/linux/mmzone.h; boot/hw/classify.h.
"""

import struct

import hw
from xenpv.abi import PAGE_SIZE

from . import pagefacts
from .errors import CoreError
from .pagefacts import BY_STRUCT_PAGE, FIELDS, Facts, Layout
from .pagetables import PageTables

# A page of bits: 128 MiB of RAM, which is also a section.
WINDOW = 8 * PAGE_SIZE
# Of mem_section.section_mem_map: the low bits are flags, the rest an address.
SECTION_FLAGS = 0x3F
USABLE = 1 | 2 | 4  # present, has struct pages, online
SECTION_BITS_MIN, SECTION_BITS_MAX = 24, 34
U64 = (1 << 64) - 1
CLASSES = ("cache", "private cache", "user", "free", "unaccepted", "poisoned", "offline")
# What a walk is to have of what is kept.
ALL, FIRST, REST = "all", "first", "rest"
# struct hw_filter: the window, size, the block that was met last, facts, a count for each class.
BLOCK_AT = 3 * 8
FACTS_AT = 6 * 8
NOW_AT = FACTS_AT + 8 * FIELDS.index("now")
COUNTS_AT = FACTS_AT + 8 * len(FIELDS)
FILTER_SIZE = COUNTS_AT + 8 * pagefacts.CLASSES
# Pages: the filter, the bits, and a page of ones.
PAGES = 3


class PageFilter:
    """The filter of one level.

    Args:
        memory: physmem.PhysicalMemory.
        info: vmcoreinfo.Vmcoreinfo.
        level: 0 to 31, as makedumpfile's -d; bit 0, zero pages, is not looked at here. A level
            that leaves no page out by its class still tells slab and page tables apart.
        given: dict of facts that the configuration brings, keys as in pagefacts.

    Attributes:
        keep: address of the bits of the window that is at hand, a bit for each page.
        kept: list of (class, why) of classes that the level leaves out, and that are kept since
            facts are missing or contradict each other; the class is "all" where no page is judged.
        turns: of the walks in whose order a dump has what matters first: slab and page tables
            (FIRST), then the rest (REST); (ALL,) where they cannot be told apart.
        turn: the walk that is under way.
        unjudged: number of pages kept so far because their struct pages cannot be read.
        why: the reason of the first of these; "" for none.

    Raises MemoryError when there are not PAGES pages left.
    """

    def __init__(self, memory, info, level, given=None):
        self.kept = []
        self.turns = (ALL,)
        self.turn = ALL
        self._first = self._before = 0
        self.unjudged = 0
        self.why = ""
        self._memory = memory
        self._sections = None
        self._pages = hw.alloc_pages(PAGES)
        self.keep = self._pages + PAGE_SIZE
        self._ones = self._pages + 2 * PAGE_SIZE
        hw.mem(self._ones, PAGE_SIZE)[:] = b"\xff" * PAGE_SIZE
        self._state = hw.mem(self._pages, FILTER_SIZE)
        try:
            self._prepare(info, Facts(info, given or {}), level)
        except CoreError as e:
            if level & BY_STRUCT_PAGE:
                self.kept.append(("all", str(e)))

    def _prepare(self, info, facts, level):
        layout = Layout(facts, level)
        self._tables = PageTables(self._memory, info)
        self._sections = Sections(self._tables, facts, layout.size)
        self._size = layout.size
        self.kept += layout.kept
        if layout.first:
            self._first = layout.first
            self.turns = (FIRST, REST)
        struct.pack_into("<Q", self._state, 16, layout.size)
        for number, name in enumerate(FIELDS):
            struct.pack_into("<Q", self._state, FACTS_AT + 8 * number, layout.fields[name])

    def close(self):
        """Give the pages back."""
        hw.free_pages(self._pages, PAGES)

    def begin(self, turn):
        """Begin a walk over ranges that no other of `turns` has walked since the last ALL.

        What is left out is counted in one of them.

        Args:
            turn: ALL, or the next of `turns`.
        """
        if turn == FIRST:
            self._before = bytes(self._counts())
        elif turn == REST:
            self._counts()[:] = self._before
        self.turn = turn
        now = (1 << pagefacts.CLASSES) - 1
        if turn != ALL:
            now = self._first if turn == FIRST else now & ~self._first
        struct.pack_into("<3Q", self._state, BLOCK_AT, 0, 0, 0)
        struct.pack_into("<Q", self._state, NOW_AT, now)

    def survey(self, ranges):
        """Count pages by class beforehand.

        Args:
            ranges: iterable of (first frame, number).

        Returns: list of (class, number), of those left out, then of "slab" and "page tables".
        """
        self.begin(ALL)
        for pfn, count in ranges:
            for _ in self.windows(pfn, count):
                pass
        names = CLASSES + ("slab", "page tables")
        counts = struct.unpack_from("<%dQ" % len(names), self._state, COUNTS_AT + 8)
        self._counts()[:] = bytes(FILTER_SIZE - COUNTS_AT)
        self.unjudged = 0
        return list(zip(names, counts))

    def counts(self):
        """Return the pages left out so far by class, a list of (class, number)."""
        raw = self._before if self.turn == FIRST else self._counts()
        found = struct.unpack_from("<%dQ" % len(CLASSES), raw, 8)
        return [(name, n) for name, n in zip(CLASSES, found)]

    def _counts(self):
        return self._state[COUNTS_AT:FILTER_SIZE]

    def windows(self, pfn, count):
        """Judge page frames, which must be RAM, piece by piece.

        Args:
            pfn: the first frame.
            count: number of frames. Calls in ascending order find the most, since a free block may
                go on in the next range.

        Yields (pfn, count) of each piece, in order, at most WINDOW frames. Until the next one bit i
        of the bytes at `keep` says whether the dump has frame pfn + i.
        """
        end = pfn + count
        while pfn < end:
            stop = min(end, (pfn // WINDOW + 1) * WINDOW)
            hw.copy(self.keep, self._ones, (stop - pfn + 7) // 8)
            if self._sections is not None:
                self._judge(pfn, stop)
            yield pfn, stop - pfn
            pfn = stop

    def runs(self, pfn, count):
        """Judge page frames. Yields (pfn, number) of each run of frames that the dump has."""
        for base, n in self.windows(pfn, count):
            at = 0
            while at < n:
                end = hw.run_end(self.keep, at, n)
                if hw.mem(self.keep + at // 8, 1)[0] >> at % 8 & 1:
                    yield base + at, end - at
                at = end

    def _judge(self, pfn, end):
        """Clear the bits of the frames that are left out; where that fails the rest is kept."""
        struct.pack_into("<2Q", self._state, 0, pfn, end)
        # What the block covers that began in an earlier window.
        at = hw.classify(self._pages, 0, pfn, 0, self.keep)
        while at < end:
            stop = min(end, self._sections.end(at))
            try:
                while at < stop:
                    at = self._piece(at, stop)
            except CoreError as e:
                if self.turn == FIRST:
                    self._clear(at - pfn, stop - pfn)
                else:
                    self.unjudged += stop - at
                    self.why = self.why or str(e)
                at = stop

    def _clear(self, bit, end):
        """Clear the bits of what cannot be judged: it belongs to the rest."""
        while bit < end and (bit % 8 or end - bit < 8):
            hw.mem(self.keep + bit // 8, 1)[0] &= ~(1 << bit % 8)
            bit += 1
        count = (end - bit) // 8
        hw.mem(self.keep + bit // 8, count)[:] = bytes(count)
        for at in range(bit + count * 8, end):
            hw.mem(self.keep + at // 8, 1)[0] &= ~(1 << at % 8)

    def _piece(self, pfn, stop):
        va = self._sections.struct_page(pfn)
        paddr, run = self._tables.locate(va)
        n = min(run // self._size, stop - pfn)
        if n == 0:
            raise CoreError("the struct page at 0x%x is not in one piece" % va)
        return hw.classify(self._pages, self._memory.at(paddr, n * self._size), pfn, n, self.keep)


class Sections:
    """Where the struct pages of the crashed kernel's sections of memory are.

    Args:
        tables: PageTables.
        facts: pagefacts.Facts.
        size: bytes of struct page.

    Raises CoreError where the sections cannot be found.
    """

    def __init__(self, tables, facts, size):
        self._tables = tables
        self._page_size = size
        self._roots = facts.symbol("mem_section")
        self._count = facts.get("LENGTH(mem_section)", 1, 1 << 24)
        self._size = facts.get("SIZE(mem_section)", 8, PAGE_SIZE)
        self._offset = facts.offset("mem_section.section_mem_map", self._size, 8)
        bits = facts.get("NUMBER(SECTION_SIZE_BITS)", SECTION_BITS_MIN, SECTION_BITS_MAX)
        self._pages = (1 << bits) // PAGE_SIZE
        self._per_root = PAGE_SIZE // self._size
        self._number = None
        self._coded = 0

    def end(self, pfn):
        """Return the pfn behind the section that has `pfn`."""
        return (pfn // self._pages + 1) * self._pages

    def struct_page(self, pfn):
        """Return the virtual address of a frame's struct page. Raises CoreError without one."""
        number = pfn // self._pages
        if number != self._number:
            self._coded = self._read(number)
            self._number = number
        # The address is kept less that of the section's first frame, so that a frame's is a sum.
        return (self._coded + pfn * self._page_size) & U64

    def _read(self, number):
        root = number // self._per_root
        if root >= self._count:
            raise CoreError("section %d is not among those of the kernel" % number)
        sections = self._u64(self._roots + 8 * root)
        if sections == 0:
            raise CoreError("section %d does not exist" % number)
        at = sections + number % self._per_root * self._size + self._offset
        coded = self._u64(at)
        if coded & USABLE != USABLE:
            raise CoreError("section %d is not online: 0x%x" % (number, coded))
        return coded & ~SECTION_FLAGS

    def _u64(self, va):
        return struct.unpack("<Q", self._tables.read(va, 8))[0]
