"""The stream of a dump: the dump format that keeps what matters first, each byte under a check.

Used by the dump agent, which asks it what it needs and then lets it write to a sink (dump.py says
what both promise); chunks.py has the layout. The order is the rule: why the kernel died comes
first, so the facts, the notes and the log are on the target before any page; then come the stacks
in use, the pages of the kernel's own mapping, slab and page tables, then the rest of RAM. At the
level config.LOG_ONLY the stacks are all the pages there are. Memory: the packer's buffers; nothing
grows with RAM.
"""

import struct

import hw
from xenpv.abi import PAGE_SIZE

from . import chunks, superblock, survey
from .cause import Cause
from .config import LOG_ONLY
from .errors import CoreError, DumpError, reason
from .packer import BUFFERS, Packer, Raw
from .pagefilter import ALL, FIRST, PageFilter
from .pagetables import PageTables
from .physmem import PhysicalMemory
from .printk import Log
from .stacks import Stacks
from .vmcoreinfo import Vmcoreinfo
from .writer import Writer, payload

# Bytes of one LOG chunk, about.
LOG_PIECE = 8192
RANGES_MAX = 128
RUNS_MAX = 128
# Pages that are counted by class beforehand: at 10 ns a page those of 128 GiB take 0.3 s.
SURVEY_MAX = 1 << 25
U64 = (1 << 64) - 1


class Stream:
    """The stream of a crashed kernel's memory, ready to be written.

    Args:
        memory: oldmem.OldMemory.
        dump: id of the dump, u64.
        facts: lines KEY=VALUE for the first chunk.
        holes: holes.Holes, asked of each frame before it is read.
        level: 0 to 31, the pages to leave out, as makedumpfile's -d; or config.LOG_ONLY.
        compress: whether pages are compressed, by zstd.
        given: dict of facts on the crashed kernel that the configuration has.
        say: a function that is given lines for the console.

    Attributes:
        buffer: pages that the sink needs for what it is given as bytes.
        least: bytes that it takes at least on the target.
        ranges: number of pieces of memory it stores.
        pages: pages that it stores at most.
        dump: its id.
        level: as given.
        log: printk.Log, None where it cannot be read.
        no_log: why not, or "".
        cause: cause.Cause, None without a log.
        algorithm: of superblock.ALGORITHM_NAMES.
        missing: pages that could not be read, so far.
    """

    buffer = 4

    def __init__(self, memory, dump, facts, holes, level, compress, given, say):
        self.memory = memory
        self._ram = PhysicalMemory(memory.ranges)
        self._info = Vmcoreinfo(memory.info)
        self.level = level
        self.algorithm = superblock.ALGORITHM_ZSTD if compress else superblock.ALGORITHM_NONE
        self._compress = compress
        self._given = given
        self._filter = None
        self.dump = dump
        self._facts = facts
        self._packer = None
        self._holes = holes
        self._say = say
        self._unreadable = []
        self.missing = 0
        self.ranges = self.pages = 0
        for area in self._pieces():
            self.ranges += 1
            self.pages += area.frames()[1]
        self.least = sum([size for _, size in memory.notes]) + 64 * PAGE_SIZE
        self._twice = 0
        self.log = self.cause = None
        self.no_log = ""
        try:
            log = Log(self._ram, self._info)
            self.cause = Cause(log)
        except (CoreError, MemoryError) as e:
            # The dump goes on without it.
            self.no_log = reason(e)
            return
        self.log = log
        if self.cause.text:
            facts.append("cause=%s" % self.cause.text)

    @property
    def done(self):
        """How many of `pages` it is through with."""
        done = self._packer.done - self._twice + self.missing
        return done + sum([n for _, n in self.left_out()])

    def reserve(self, buffers=BUFFERS):
        """Take all memory that writing needs.

        buffers: to pack pages in; 1 suffices for a sink that copies.

        Raises DumpError.
        """
        self._packer = Packer(buffers) if self._compress else Raw()
        if self.level == LOG_ONLY:
            return
        self._make_filter()
        for name, why in self._filter.kept:
            self._say("level %d: %s pages are kept: %s" % (self.level, name, why))
        if self.pages <= SURVEY_MAX:
            found = self._filter.survey(self._judged(area) for area in self._pieces())
            self._say(survey.line(self.pages, found))

    def _make_filter(self):
        try:
            self._filter = PageFilter(self._ram, self._info, self.level, self._given)
        except MemoryError as e:
            raise DumpError("no memory for the page filter: %s" % e)

    def again(self):
        """Get ready to be written once more, to another target and with another id."""
        self.dump = (self.dump + 1) & U64
        self.missing = self._twice = 0
        self._unreadable = []
        if self._filter is not None:
            self._filter.close()
            self._make_filter()

    async def write(self, sink):
        """Write the whole stream. Returns its bytes. Raises what the sink raises.

        sink: as dump.py describes it.
        """
        out = Writer(sink, self.dump)
        packer = self._packer
        packer.begin(out, sink)
        await out.put(chunks.FACTS, [payload(self._facts)])
        await self._put_memory(out)
        notes = [hw.mem(address, size) for address, size in self.memory.notes]
        await out.put(chunks.NOTES, notes)
        await self._put_log(out)
        # A loss of power leaves at least this.
        await sink.sync()
        await self._put_stacks()
        lines = ["pages=%d" % self.pages]
        if self.level != LOG_ONLY:
            await self._put_kept(out)
            lines.append("unreadable=%d" % self.missing)
            lines += ["%s=%d" % item for item in self._filter.counts()]
        await out.manifest(lines)
        return out.size

    def left_out(self):
        """Return the pages left out so far by class, a list of (class, number)."""
        return [] if self._filter is None else self._filter.counts()

    async def _put_stacks(self):
        """Append the stacks in use, as far as they can be found; the pages may come again."""
        try:
            tables = PageTables(self._ram, self._info)
        except CoreError as e:
            self._say("the stacks are not found: %s" % e)
            return
        packer = self._packer
        for gfn, pfn in Stacks(self._ram, tables, self.memory.notes, hw.vcpu()).pages():
            for _, _, is_there in self._holes.runs(gfn, 1):
                if is_there:
                    await packer.pack(gfn, 1, pfn)
        await packer.flush()
        self._twice = packer.done

    async def _put_kept(self, out):
        """Append what is kept, the kernel's own mapping first, then the rest of RAM by turns."""
        packer = self._packer
        self._filter.begin(ALL)
        for area in self.memory.kernel:
            await self._put_area(out, area)
        for turn in self._filter.turns:
            self._filter.begin(turn)
            for area in self._rest():
                await self._put_area(out, area)
        await packer.flush()
        await self._put_unreadable(out)

    async def _put_area(self, out, area):
        """Append what is kept of a range in the filter's turn."""
        packer = self._packer
        moved = (area.paddr - area.source) // PAGE_SIZE
        for pfn, count in self._kept(area):
            for gfn, number, is_there in self._holes.runs(pfn - moved, count):
                if is_there:
                    await packer.pack(gfn, number, gfn + moved)
                else:
                    await self._leave_out(out, gfn + moved, number)

    def _judged(self, area):
        """Return (first frame, number) of the frames that are all in a range, by where it was."""
        begin = (area.paddr + PAGE_SIZE - 1) // PAGE_SIZE
        end = (area.paddr + area.size) // PAGE_SIZE
        return begin, max(end - begin, 0)

    def _kept(self, area):
        """Yield (first frame, number) of what of a range is stored now, by where it was."""
        first, end = area.paddr // PAGE_SIZE, area.paddr // PAGE_SIZE + area.frames()[1]
        # Of a page that is not all in the range nothing is known.
        begin, count = self._judged(area)
        if count == 0:
            begin = end
        if self._filter.turn != FIRST and first < begin:
            yield first, begin - first
        for run in self._filter.runs(begin, count):
            yield run
        if self._filter.turn != FIRST and begin + count < end:
            yield begin + count, end - begin - count

    async def _put_memory(self, out):
        raw = bytearray()
        for areas in (self.memory.kernel, self.memory.ranges()):
            for area in areas:
                raw += struct.pack(chunks.RANGE, area.paddr, area.size, area.vaddr)
                if len(raw) == RANGES_MAX * chunks.RANGE_SIZE:
                    await out.put(chunks.MEMORY, [raw], 0, RANGES_MAX)
                    raw = bytearray()
        if raw:
            await out.put(chunks.MEMORY, [raw], 0, len(raw) // chunks.RANGE_SIZE)

    async def _put_log(self, out):
        """Append the kernel's log, as far as it can be read."""
        log = self.log
        if log is None:
            return
        text = bytearray()
        for line in log.lines():
            text += line.encode() + b"\n"
            if len(text) >= LOG_PIECE:
                await out.put(chunks.LOG, [text])
                text = bytearray()
        if text:
            await out.put(chunks.LOG, [text])
        if log.lost:
            self._say("%d records of the kernel's log are missing: %s" % (log.lost, log.why))

    async def _leave_out(self, out, pfn, count):
        self.missing += count
        self._unreadable.append((pfn, count))
        if len(self._unreadable) == RUNS_MAX:
            await self._put_unreadable(out)

    async def _put_unreadable(self, out):
        runs = self._unreadable
        if runs:
            self._unreadable = []
            data = b"".join([struct.pack(chunks.RUN, pfn, count) for pfn, count in runs])
            await out.put(chunks.UNREADABLE, [data], 0, len(runs))

    def _pieces(self):
        """Yield the memory to store (oldmem.Range): the kernel's own mapping, then the rest."""
        for area in self.memory.kernel:
            yield area
        for area in self._rest():
            yield area

    def _rest(self):
        """Yield the memory to store that is not the kernel's own mapping."""
        for area in self.memory.ranges():
            rest = [area]
            for kernel in self.memory.kernel:
                first, count = kernel.frames()
                start, end = first * PAGE_SIZE, (first + count) * PAGE_SIZE
                rest = [part for piece in rest for part in piece.without(start, end)]
            for piece in rest:
                yield piece
