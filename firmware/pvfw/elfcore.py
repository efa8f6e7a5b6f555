"""What the crashed kernel said of its memory, and the ELF vmcore made of it.

Used by the dump agent. The ELF header at elfcorehdr= lists a PT_NOTE per CPU, one with VMCOREINFO,
and PT_LOADs: the kernel's text, which lies in RAM too, and the RAM ranges. Rules: data is read at
p_offset and recorded at p_paddr (they differ for the backup of the low 640 KiB); the notes become
one PT_NOTE, which must be program header 0 for the crash utility; p_align stays 0 for the same
reader; the kernel has left the crash region out, and what we run in is left out in any case. The
kernel's own pages, its log among them, are stored first, so that a dump that ends early still says
why the kernel died.
Source: Linux kernel/crash_core.c, fs/proc/vmcore.c; kexec-tools kexec/crashdump-elf.c.
"""

import struct

import hw
from xenpv.text import printable

from .elf import PHNUM_MAX
from .errors import CoreError

PAGE = 4096
EHDR = "<4sBBBB8sHHIQQQIHHHHHH"
EHDR_SIZE = 64
PHDR = "<IIQQQQQQ"
PHDR_SIZE = 56
ET_CORE = 4
EM_X86_64 = 62
PT_LOAD = 1
PT_NOTE = 4
KERNEL_MAP = 0xFFFFFFFF80000000
VMCOREINFO = b"VMCOREINFO\0"
NOTE_MAX = 64 * 1024
NOTES_MAX = 256 * 1024
PHOFF_MAX = 1 << 20
# A frame number has 32 bits where it is granted: no memory of a guest lies higher.
ADDRESS_MAX = 1 << 44


class Range:
    """Memory: `size` bytes, read at physical `source`, recorded at `paddr` and `vaddr`.

    `offset` is its place in the vmcore, at the same distance from a page's start as `source`.
    home: the range that stores these bytes, where it is another one.
    """

    def __init__(self, source, paddr, vaddr, size, home=None):
        self.source = source
        self.paddr = paddr
        self.vaddr = vaddr
        self.size = size
        self.home = home
        self.offset = 0

    def place(self):
        """Offset in the vmcore of the first byte."""
        home = self.home
        return self.offset if home is None else home.offset + self.paddr - home.paddr

    def frames(self):
        """(first frame, number of frames, offset in the vmcore of the first)."""
        first = self.source // PAGE
        end = (self.source + self.size + PAGE - 1) // PAGE
        return first, end - first, self.offset - self.source % PAGE


class Core:
    """notes: the merged notes (bytes); vmcoreinfo: its text (bytes); ranges: of RAM; text: the
    kernel's own mapping, recorded but not stored twice; size: bytes of the vmcore."""

    def __init__(self):
        self.notes = bytearray()
        self.vmcoreinfo = b""
        self.ranges = []
        self.text = []
        self.size = 0
        self.data = 0
        # What was wrong with it and does not stop the dump, one message each.
        self.problems = []

    def info(self, key):
        """A value of VMCOREINFO, as text; "" where it is not there."""
        mark = key.encode() + b"="
        for line in self.vmcoreinfo.split(b"\n"):
            if line[: len(mark)] == mark:
                return printable(line[len(mark) :])
        return ""


def read(addr, hole):
    """The crashed kernel's memory, from the ELF header at physical address addr.

    hole: (start, end) of the memory to leave out. Raises CoreError.
    """
    core = Core()
    text = []
    for type, vaddr, paddr, offset, size in _headers(addr):
        if size == 0:
            continue
        if paddr + size > ADDRESS_MAX:
            raise CoreError("elfcorehdr: 0x%x bytes at 0x%x are no memory" % (size, paddr))
        if type == PT_NOTE:
            _notes(core, offset, size)
        elif offset + size > ADDRESS_MAX:
            raise CoreError("elfcorehdr: 0x%x bytes at 0x%x are no memory" % (size, offset))
        elif type == PT_LOAD and vaddr >= KERNEL_MAP:
            text.append(Range(offset, paddr, vaddr, size))
        elif type == PT_LOAD:
            core.ranges += _without(Range(offset, paddr, vaddr, size), hole)
    if not core.ranges:
        raise CoreError("elfcorehdr at 0x%x names no memory" % addr)
    if not core.vmcoreinfo:
        raise CoreError("elfcorehdr at 0x%x has no VMCOREINFO note: no reader can use it" % addr)
    core.ranges = _kernel_first(core.ranges, text)
    for area in text:
        core.text += _mapped(core, area)
    _place(core)
    return core


def _mem(addr, size):
    """The memory at a physical address that the crashed kernel gave. Raises CoreError."""
    # The first page is never mapped, so that a null pointer is a trap.
    if not PAGE <= addr <= ADDRESS_MAX - size:
        raise CoreError("elfcorehdr: 0x%x bytes at 0x%x are no memory" % (size, addr))
    try:
        return hw.mem(addr, size)
    except ValueError as e:
        raise CoreError("elfcorehdr: %s" % e)


def _headers(addr):
    """Yields (type, vaddr, paddr, offset, memsz) of each program header."""
    raw = bytes(_mem(addr, EHDR_SIZE))
    fields = struct.unpack_from(EHDR, raw, 0)
    magic, bits, order, type, machine = fields[0], fields[1], fields[2], fields[6], fields[7]
    if magic != b"\x7fELF" or bits != 2 or order != 1 or type != ET_CORE or machine != EM_X86_64:
        raise CoreError("no ELF core header at elfcorehdr=0x%x: it begins %r" % (addr, raw[:20]))
    phoff, phentsize, phnum = fields[10], fields[14], fields[15]
    if phentsize != PHDR_SIZE or not 0 < phnum <= PHNUM_MAX or phoff > PHOFF_MAX:
        raise CoreError(
            "elfcorehdr at 0x%x is broken: phoff %d, phentsize %d, phnum %d"
            % (addr, phoff, phentsize, phnum)
        )
    for i in range(phnum):
        raw = _mem(addr + phoff + i * PHDR_SIZE, PHDR_SIZE)
        kind, _, offset, vaddr, paddr, _, memsz, _ = struct.unpack_from(PHDR, raw, 0)
        yield kind, vaddr, paddr, offset, memsz


def _notes(core, addr, size):
    """Take the notes of one PT_NOTE up to the first empty one; a damaged one ends them."""
    if len(core.notes) > NOTES_MAX:
        raise CoreError("elfcorehdr: more than %d bytes of notes" % NOTES_MAX)
    if size > NOTE_MAX:
        core.problems.append("a PT_NOTE of %d bytes at 0x%x is left out" % (size, addr))
        return
    raw = _mem(addr, size)
    at = 0
    while at + 12 <= size:
        namesz, descsz, _ = struct.unpack_from("<III", raw, at)
        if namesz == 0:
            break
        desc = at + 12 + (namesz + 3) // 4 * 4
        end = desc + (descsz + 3) // 4 * 4
        if end > size:
            core.problems.append("a note at 0x%x is damaged, it is left out" % (addr + at))
            break
        if bytes(raw[at + 12 : at + 12 + namesz]) == VMCOREINFO:
            core.vmcoreinfo = bytes(raw[desc : desc + descsz])
        at = end
    core.notes.extend(raw[:at])


def _without(range, hole):
    """The parts of a range whose source lies outside the hole."""
    start, end = hole
    first, last = range.source, range.source + range.size
    parts = []
    for a, b in ((first, min(last, start)), (max(first, end), last)):
        if a < b:
            parts.append(_part(range, a - first, b - first))
    return parts


def _part(range, start, end):
    """The bytes of a range from offset `start` to offset `end`."""
    vaddr = range.vaddr + start if range.vaddr else 0
    return Range(range.source + start, range.paddr + start, vaddr, end - start)


def _kernel_first(ranges, text):
    """The ranges cut so that the kernel's own pages, its log among them, come first."""
    for area in text:
        start = area.paddr // PAGE * PAGE
        end = (area.paddr + area.size + PAGE - 1) // PAGE * PAGE
        kernel = []
        others = []
        for range in ranges:
            a = min(max(start - range.paddr, 0), range.size)
            b = min(max(end - range.paddr, a), range.size)
            if a < b:
                kernel.append(_part(range, a, b))
            others += [_part(range, c, d) for c, d in ((0, a), (b, range.size)) if c < d]
        ranges = kernel + others
    return ranges


def _place(core):
    """Give every range its place in the vmcore."""
    phnum = 1 + len(core.ranges) + len(core.text)
    at = EHDR_SIZE + phnum * PHDR_SIZE + len(core.notes)
    core.data = at = (at + PAGE - 1) // PAGE * PAGE
    for range in core.ranges:
        range.offset = at + range.source % PAGE
        at += range.frames()[1] * PAGE
    core.size = at


def _mapped(core, text):
    """The kernel's mapping as parts, each of which points at the RAM range that holds it."""
    parts = []
    for range in core.ranges:
        start = max(text.paddr, range.paddr)
        end = min(text.paddr + text.size, range.paddr + range.size)
        if start < end:
            source = range.source + start - range.paddr
            vaddr = text.vaddr + start - text.paddr
            parts.append(Range(source, start, vaddr, end - start, range))
    return parts


def header(core):
    """The first core.data bytes of the vmcore: ELF header, program headers, notes, padding."""
    raw = bytearray(core.data)
    loads = core.text + core.ranges
    phnum = 1 + len(loads)
    struct.pack_into(
        EHDR,
        raw,
        0,
        b"\x7fELF",
        2,
        1,
        1,
        0,
        bytes(8),
        ET_CORE,
        EM_X86_64,
        1,
        0,
        EHDR_SIZE,
        0,
        0,
        EHDR_SIZE,
        PHDR_SIZE,
        phnum,
        0,
        0,
        0,
    )
    notes = EHDR_SIZE + phnum * PHDR_SIZE
    size = len(core.notes)
    struct.pack_into(PHDR, raw, EHDR_SIZE, PT_NOTE, 0, notes, 0, 0, size, size, 0)
    at = EHDR_SIZE + PHDR_SIZE
    for load in loads:
        struct.pack_into(
            PHDR,
            raw,
            at,
            PT_LOAD,
            7,
            load.place(),
            load.vaddr,
            load.paddr,
            load.size,
            load.size,
            0,
        )
        at += PHDR_SIZE
    raw[notes : notes + size] = core.notes
    return raw
