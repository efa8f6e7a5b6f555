"""What the crashed kernel said of its memory, and the ELF vmcore made of it.

Used by the dump agent. The ELF header at elfcorehdr= lists a PT_NOTE per CPU, one with VMCOREINFO,
and PT_LOADs: the kernel's text, which lies in RAM too, and the RAM ranges. Rules: data is read at
p_offset and recorded at p_paddr (they differ for the backup of the low 640 KiB); the notes become
one PT_NOTE, which must be program header 0 for the crash utility; p_align stays 0 for the same
reader; the crash region, which is us, is left out.
Source: Linux kernel/crash_core.c, fs/proc/vmcore.c; kexec-tools kexec/crashdump-elf.c.
"""

import struct

import hw

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
PHNUM_MAX = 16384
NOTE_MAX = 64 * 1024
ADDRESS_MAX = 1 << 46


class Range:
    """RAM: `size` bytes, read at physical `source`, recorded at `paddr` and `vaddr`.

    `offset` is its place in the vmcore, at the same distance from a page's start as `source`."""

    def __init__(self, source, paddr, vaddr, size):
        self.source = source
        self.paddr = paddr
        self.vaddr = vaddr
        self.size = size
        self.offset = 0

    def frames(self):
        """(first frame, number of frames, offset in the vmcore of the first)."""
        first = self.source // PAGE
        end = (self.source + self.size + PAGE - 1) // PAGE
        return first, end - first, self.offset - self.source % PAGE


class Core:
    """notes: the merged notes (bytes); vmcoreinfo: its text (bytes); ranges: of RAM; text: the
    kernel's own mapping, recorded but not stored twice; size: bytes of the vmcore."""

    def __init__(self):
        self.notes = b""
        self.vmcoreinfo = b""
        self.ranges = []
        self.text = []
        self.size = 0
        self.data = 0

    def info(self, key):
        """A value of VMCOREINFO, as text; "" where it is not there."""
        mark = key.encode() + b"="
        for line in self.vmcoreinfo.split(b"\n"):
            if line[: len(mark)] == mark:
                return "".join(chr(c) if 32 <= c < 127 else "?" for c in line[len(mark) :])
        return ""


def read(addr, hole):
    """The crashed kernel's memory, from the ELF header at physical address addr.

    hole: (start, end) of the memory to leave out. Raises CoreError.
    """
    core = Core()
    for type, vaddr, paddr, offset, size in _headers(addr):
        if size == 0:
            continue
        if offset + size > ADDRESS_MAX or paddr + size > ADDRESS_MAX:
            raise CoreError(
                "elfcorehdr: a segment of 0x%x bytes at 0x%x is outside any memory" % (size, offset)
            )
        if type == PT_NOTE:
            core.notes += _notes(core, offset, size)
        elif type == PT_LOAD and vaddr >= KERNEL_MAP:
            core.text.append(Range(offset, paddr, vaddr, size))
        elif type == PT_LOAD:
            core.ranges += _without(Range(offset, paddr, vaddr, size), hole)
    if not core.ranges:
        raise CoreError("elfcorehdr at 0x%x names no memory" % addr)
    if not core.vmcoreinfo:
        raise CoreError("elfcorehdr at 0x%x has no VMCOREINFO note: no reader can use it" % addr)
    _place(core)
    return core


def _headers(addr):
    """(type, vaddr, paddr, offset, memsz) of each program header."""
    raw = bytes(hw.mem(addr, EHDR_SIZE))
    fields = struct.unpack_from(EHDR, raw, 0)
    magic, bits, order, type, machine = fields[0], fields[1], fields[2], fields[6], fields[7]
    if magic != b"\x7fELF" or bits != 2 or order != 1 or type != ET_CORE or machine != EM_X86_64:
        raise CoreError("no ELF core header at elfcorehdr=0x%x: it begins %r" % (addr, raw[:20]))
    phoff, phentsize, phnum = fields[10], fields[14], fields[15]
    if phentsize != PHDR_SIZE or not 0 < phnum <= PHNUM_MAX or phoff > 1 << 20:
        raise CoreError(
            "elfcorehdr at 0x%x is broken: phoff %d, phentsize %d, phnum %d"
            % (addr, phoff, phentsize, phnum)
        )
    found = []
    for i in range(phnum):
        raw = hw.mem(addr + phoff + i * PHDR_SIZE, PHDR_SIZE)
        kind, _, offset, vaddr, paddr, _, memsz, _ = struct.unpack_from(PHDR, raw, 0)
        found.append((kind, vaddr, paddr, offset, memsz))
    return found


def _notes(core, addr, size):
    """The notes of one PT_NOTE up to the first empty one; VMCOREINFO's text goes to core."""
    if size > NOTE_MAX:
        raise CoreError("elfcorehdr: a PT_NOTE of %d bytes is over %d" % (size, NOTE_MAX))
    raw = hw.mem(addr, size)
    at = 0
    while at + 12 <= size:
        namesz, descsz, _ = struct.unpack_from("<III", raw, at)
        if namesz == 0:
            break
        desc = at + 12 + (namesz + 3) // 4 * 4
        end = desc + (descsz + 3) // 4 * 4
        if end > size:
            raise CoreError("a note at 0x%x goes beyond its PT_NOTE" % (addr + at))
        if bytes(raw[at + 12 : at + 22]) == b"VMCOREINFO":
            core.vmcoreinfo = bytes(raw[desc : desc + descsz])
        at = end
    return bytes(raw[:at])


def _without(range, hole):
    """The parts of a range whose source lies outside the hole."""
    start, end = hole
    first, last = range.source, range.source + range.size
    parts = []
    for a, b in ((first, min(last, start)), (max(first, end), last)):
        if a < b:
            skip = a - first
            vaddr = range.vaddr + skip if range.vaddr else 0
            parts.append(Range(a, range.paddr + skip, vaddr, b - a))
    return parts


def _place(core):
    """Give every range its place in the vmcore."""
    phnum = 1 + len(core.ranges) + len(core.text)
    at = EHDR_SIZE + phnum * PHDR_SIZE + len(core.notes)
    core.data = at = (at + PAGE - 1) // PAGE * PAGE
    for range in core.ranges:
        range.offset = at + range.source % PAGE
        at += range.frames()[1] * PAGE
    core.size = at
    core.text = [text for text in core.text if _find(core, text)]


def _find(core, text):
    """Let the kernel's mapping point at the RAM range that holds it; False when none does."""
    for range in core.ranges:
        skip = text.paddr - range.paddr
        if 0 <= skip <= range.size - text.size:
            text.offset = range.offset + skip
            return True
    return False


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
            load.offset,
            load.vaddr,
            load.paddr,
            load.size,
            load.size,
            0,
        )
        at += PHDR_SIZE
    raw[notes : notes + size] = core.notes
    return raw
