"""The stream of a dump: the dump format that keeps what matters first, each byte under a check.

Used by the dump agent, which asks it what it needs and then lets it write to a sink (dump.py says
what both promise); chunks.py has the layout. The order is the rule: why the kernel died comes
first, so the facts, the notes and the log are on the target before any page; then come the stacks
in use, the pages of the kernel's own mapping, slab and page tables, then the rest of RAM. At the
level config.LOG_ONLY the stacks are all the pages there are. Memory: BUFFERS buffers of
BUFFER_PAGES pages, in which pages are packed while the ones before are on their way; nothing grows
with RAM.
"""

import struct
from array import array

import hw
from xenpv.abi import PAGE_SIZE

from . import chunks, superblock, survey
from .cause import Cause
from .config import LOG_ONLY
from .errors import CoreError, DumpError, reason
from .pagefilter import ALL, FIRST, PageFilter
from .pagetables import PageTables
from .physmem import PhysicalMemory
from .printk import Log
from .stacks import Stacks
from .vmcoreinfo import Vmcoreinfo

BUFFERS = 2
BUFFER_PAGES = 32
# Entries of a chunk's table of pages.
TABLE_MAX = 512
# Indexes of what hw.pack() is given.
GFN, COUNT, BIT, USED, ENTRIES = range(5)
# Bytes of a buffer that pages may fill: the header is in front, the table goes behind.
ROOM = BUFFER_PAGES * PAGE_SIZE - chunks.HEADER_SIZE - TABLE_MAX * chunks.ENTRY_SIZE
# Bytes of one LOG chunk, about.
LOG_PIECE = 8192
PLACES_MAX = 256
RANGES_MAX = 128
RUNS_MAX = 128
# Pages that are counted by class beforehand: at 10 ns a page those of 128 GiB take 0.3 s.
SURVEY_MAX = 1 << 25
U64 = (1 << 64) - 1


class Writer:
    """Appends chunks to a sink.

    Args:
        sink: as dump.py describes it.
        dump: id of the dump, u64.

    Attributes: size, bytes of the stream so far; number, chunks so far; chain, the CRC-32 of their
    headers.
    """

    def __init__(self, sink, dump):
        self._sink = sink
        self._dump = dump
        self.size = 0
        self.number = 0
        self.chain = 0
        self._places = bytearray(PLACES_MAX * chunks.PLACE_SIZE)
        self._count = 0
        self._index = 0

    def _header(self, kind, size, crc, value, count):
        """Make the header of the next chunk. Returns (Header, its bytes)."""
        header = chunks.Header(kind, self._dump, self.size, size, crc, value, count)
        raw = header.encode()
        self.chain = hw.crc32(raw, self.chain)
        self.number += 1
        at = self._count * chunks.PLACE_SIZE
        struct.pack_into(chunks.PLACE, self._places, at, self.size, kind)
        self._count += 1
        self.size += header.length()
        return header, raw

    async def put(self, kind, parts, value=0, count=0):
        """Append a chunk whose payload is given, which is copied.

        Args:
            kind: of chunks.NAMES.
            parts: list of bytes or memoryviews, one behind the other.
            value, count: of the header.
        """
        crc = 0
        size = 0
        for part in parts:
            crc = hw.crc32(part, crc)
            size += len(part)
        _, raw = self._header(kind, size, crc, value, count)
        await self._sink.put(raw)
        for part in parts:
            await self._sink.put(part)
        rest = chunks.padded(chunks.HEADER_SIZE + size) - chunks.HEADER_SIZE - size
        await self._sink.put(bytes(rest))
        await self._indexed()

    async def pages(self, address, size, value, count):
        """Append a PAGES chunk that stands in memory of ours, with room for its header in front.

        It is not copied: it must stay as it is until the sink has written it.

        Args:
            address: physical, of a page of ours.
            size: bytes of the payload, which begins HEADER_SIZE bytes behind address.
            value, count: of the header.
        """
        crc = hw.crc32(hw.mem(address + chunks.HEADER_SIZE, size))
        header, raw = self._header(chunks.PAGES, size, crc, value, count)
        hw.mem(address, chunks.HEADER_SIZE)[:] = raw
        length = header.length()
        rest = length - chunks.HEADER_SIZE - size
        hw.mem(address + length - rest, rest)[:] = bytes(rest)
        await self._sink.own(address // PAGE_SIZE, length // PAGE_SIZE)
        await self._indexed()

    async def raw(self, gfn, entries):
        """Append a RAW chunk of whole frames, which are granted and not copied.

        Args:
            gfn: the first frame.
            entries: a chunks.RAW_ENTRY for each.
        """
        size = len(entries)
        count = size // chunks.RAW_ENTRY_SIZE
        _, raw = self._header(chunks.RAW, size, hw.crc32(entries), 0, count)
        await self._sink.put(raw)
        await self._sink.put(entries)
        await self._sink.frames(gfn, count)
        await self._indexed()

    async def _indexed(self):
        """Append an index once there are as many places as one takes."""
        if self._count == PLACES_MAX:
            await self.index()

    async def index(self):
        """Append an index of the chunks since the last one."""
        count = self._count
        at = self.size
        data = bytes(memoryview(self._places)[: count * chunks.PLACE_SIZE])
        self._count = 0
        before, self._index = self._index, at
        await self.put(chunks.INDEX, [data], before, count)
        # An index is found by the one behind it.
        self._count = 0

    async def manifest(self, lines):
        """Append the last chunk. lines: of its text."""
        await self.index()
        number, index = self.number, self._index
        lines = lines + ["chunks=%d" % number, "chain=%d" % self.chain]
        await self.put(chunks.MANIFEST, [_text(lines)], index, number)


class Packer:
    """Packs pages into chunks, in buffers that the sink writes while the next ones are filled.

    Args:
        buffers: how many there are.

    Attributes: done, pages packed so far.

    Raises DumpError where there is no memory for its buffers.
    """

    def __init__(self, buffers):
        self._out = self._sink = None
        self.done = 0
        self._table = bytearray(TABLE_MAX * chunks.ENTRY_SIZE)
        # What hw.pack() is to do, and how far it is: frame, frames left, the frame's bit,
        # bytes in the buffer, entries in the table.
        self._state = array("Q", (0, 0, 0, 0, 0))
        self._buffers = _buffers(buffers)
        # Up to where the sink must have written before a buffer is used again.
        self._ends = [0] * buffers
        self._now = 0
        # What is added to a frame to tell where it was: that of the pages of a chunk is the same.
        self._moved = 0

    def begin(self, out, sink):
        """Have what follows appended by a Writer to its sink, from nothing packed on."""
        self._out = out
        self._sink = sink
        self.done = self._moved = 0
        for i in range(len(self._state)):
            self._state[i] = 0
        for i in range(len(self._ends)):
            self._ends[i] = 0

    async def pack(self, gfn, count, pfn):
        """Pack pages.

        Args:
            gfn: frame where the first one is.
            count: how many.
            pfn: frame where it was in the crashed kernel.
        """
        if pfn - gfn != self._moved:
            await self.flush()
            self._moved = pfn - gfn
        state = self._state
        state[GFN] = gfn
        state[COUNT] = count
        state[BIT] = 0
        while True:
            at = self._buffers[self._now] + chunks.HEADER_SIZE
            hw.pack(state, None, hw.mem(at, ROOM), self._table)
            if state[COUNT] == 0:
                break
            await self.flush()
        self.done += count

    def _move(self, size):
        """Give the table's entries the frames where their pages were."""
        for at in range(0, size, chunks.ENTRY_SIZE):
            entry = struct.unpack_from("<Q", self._table, at)[0]
            struct.pack_into("<Q", self._table, at, entry + (self._moved << 32))

    async def flush(self):
        """Append what is packed as a chunk, and take the next buffer."""
        state = self._state
        count = state[ENTRIES]
        if count == 0:
            return
        address = self._buffers[self._now]
        filled = state[USED]
        size = count * chunks.ENTRY_SIZE
        if self._moved:
            self._move(size)
        table = memoryview(self._table)[:size]
        hw.mem(address + chunks.HEADER_SIZE + filled, size)[:] = table
        await self._out.pages(address, filled + size, filled, count)
        self._ends[self._now] = self._out.size
        self._now = (self._now + 1) % len(self._buffers)
        state[USED] = state[ENTRIES] = 0
        await self._sink.wait(self._ends[self._now])


class Raw:
    """Appends pages as they are; takes Packer's place where nothing is to be compressed.

    Attributes: done, pages appended so far.
    """

    def __init__(self):
        self._out = None
        self.done = 0

    def begin(self, out, sink):
        """Have what follows appended by a Writer, from nothing appended on."""
        self._out = out
        self.done = 0

    async def pack(self, gfn, count, pfn):
        """Append pages. Args: as Packer.pack()."""
        while count:
            part = min(count, chunks.RAW_MAX)
            entries = bytearray(part * chunks.RAW_ENTRY_SIZE)
            for i in range(part):
                crc = hw.crc32(hw.mem((gfn + i) * PAGE_SIZE, PAGE_SIZE))
                at = i * chunks.RAW_ENTRY_SIZE
                struct.pack_into(chunks.RAW_ENTRY, entries, at, pfn + i, crc)
            await self._out.raw(gfn, entries)
            gfn += part
            pfn += part
            count -= part
            self.done += part

    async def flush(self):
        """Do nothing: each chunk is appended at once."""


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
        await out.put(chunks.FACTS, [_text(self._facts)])
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


def _buffers(number):
    try:
        return [hw.alloc_pages(BUFFER_PAGES) for _ in range(number)]
    except MemoryError as e:
        raise DumpError("no memory for %d buffers of %d pages: %s" % (number, BUFFER_PAGES, e))


def _text(lines):
    return ("\n".join(lines) + "\n").encode()
