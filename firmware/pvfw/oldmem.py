"""The crashed kernel's memory, as the ELF header at elfcorehdr= describes it.

Made by the dump agent, read by the dump's format. That header lists a PT_NOTE per CPU, one with
VMCOREINFO, and PT_LOADs: the kernel's own mapping of itself, which lies in RAM too, and the ranges
of RAM. Rules: data is read at p_offset and recorded at p_paddr (they differ for the backup of the
low 640 KiB); what we run in is left out; whatever in there is damaged is left out and told, and
costs nothing else. However many ranges there are, none is kept: each pass reads the header again.
Source: Linux kernel/crash_core.c, fs/proc/vmcore.c; kexec-tools kexec/crashdump-elf.c.
"""

import struct

import hw
from xenpv.abi import PAGE_SIZE
from xenpv.text import printable

from . import elf
from .errors import CoreError

# Mappings from here on are the kernel's of itself, not of all RAM.
KERNEL_MAP = 0xFFFFFFFF80000000
KERNEL_MAPPINGS_MAX = 16
VMCOREINFO = b"VMCOREINFO\0"
# Bytes of one PT_NOTE, and what all of them may have: bytes, number.
NOTE_MAX = 64 * 1024
NOTES_MAX = 256 * 1024
NOTES_COUNT_MAX = 1024
PHOFF_MAX = 1 << 20
PHNUM_MAX = 0xFFFE
# A frame number has 32 bits where it is granted: no memory of a guest lies higher.
ADDRESS_MAX = 1 << 44
PROBLEMS_MAX = 8


class Range:
    """Memory that is contiguous where it is read and where it was.

    Attributes:
        source: physical address to read it at.
        paddr, vaddr: its addresses in the crashed kernel; vaddr is 0 where none is known.
        size: bytes.
    """

    def __init__(self, source, paddr, vaddr, size):
        self.source = source
        self.paddr = paddr
        self.vaddr = vaddr
        self.size = size

    def part(self, start, end):
        """Return the bytes from offset `start` to offset `end`, as a Range."""
        vaddr = self.vaddr + start if self.vaddr else 0
        return Range(self.source + start, self.paddr + start, vaddr, end - start)

    def without(self, start, end):
        """Return the parts that are read outside the physical addresses start to end, a list."""
        first, last = self.source, self.source + self.size
        pieces = ((first, min(last, start)), (max(first, end), last))
        return [self.part(a - first, b - first) for a, b in pieces if a < b]

    def takes(self, other):
        """Grow by the range `other` where that one follows. Returns whether it did."""
        size = self.size
        if self.source + size != other.source or self.paddr + size != other.paddr:
            return False
        if other.vaddr != (self.vaddr + size if self.vaddr else 0):
            return False
        self.size += other.size
        return True

    def frames(self):
        """Return (first, number) of the page frames that hold it."""
        first = self.source // PAGE_SIZE
        end = (self.source + self.size + PAGE_SIZE - 1) // PAGE_SIZE
        return first, end - first


class OldMemory:
    """The crashed kernel's description of its memory.

    Args:
        address: physical address of the ELF header, from elfcorehdr=.
        hole: (start, end), physical addresses of the memory to leave out.

    Attributes:
        notes: list of (physical address, bytes) of notes, without their padding.
        kernel: list of Range, the kernel's mapping of itself; at most KERNEL_MAPPINGS_MAX.
        problems: list of messages on what was left out, PROBLEMS_MAX and a count of the others.

    Raises CoreError where there is no such header or it names no memory.
    """

    def __init__(self, address, hole):
        self.notes = []
        self.problems = []
        self._untold = 0
        self._hole = hole
        self._vmcoreinfo = b""
        self._notes_size = 0
        self._table = self._find(address)
        for kind, _, paddr, source, size, more in self._segments():
            if more and kind in (elf.PT_NOTE, elf.PT_LOAD):
                self._leave_out(
                    "0x%x bytes at 0x%x are beyond p_memsz: not taken" % (more, source + size)
                )
            if kind == elf.PT_NOTE:
                self._read_notes(source, size)
            elif kind == elf.PT_LOAD and size and not _is_memory(paddr, source, size):
                self._leave_out("a range of 0x%x bytes at 0x%x is no memory" % (size, paddr))
        self.kernel = self._read_kernel()
        if not self.kernel and not self._names_memory():
            raise CoreError("elfcorehdr at 0x%x names no memory" % address)
        if not self.info("OSRELEASE"):
            self._leave_out(
                "VMCOREINFO is missing or overwritten: makedumpfile and crash may need it,"
                " other readers find it by scanning"
            )
        if self._untold:
            self.problems.append("elfcorehdr: %d more of its entries are unusable" % self._untold)

    def ranges(self):
        """Yield the ranges of RAM (Range) in their order; neighbours are one."""
        for area in _joined(self._loads(False)):
            for part in area.without(*self._hole):
                yield part

    def info(self, key):
        """Return the value of a key of VMCOREINFO, printable; "" where it is not there."""
        mark = key.encode() + b"="
        for line in self._vmcoreinfo.split(b"\n"):
            if line[: len(mark)] == mark:
                return printable(line[len(mark) :])
        return ""

    def _names_memory(self):
        for _ in self.ranges():
            return True
        return False

    def _find(self, address):
        """Return the memory of the program headers."""
        raw = bytes(_mem(address, elf.EHDR_SIZE))
        found = elf.program_headers(raw)
        if found is None:
            raise CoreError(
                "no ELF core header at elfcorehdr=0x%x: it begins %r" % (address, raw[:20])
            )
        phoff, phentsize, phnum = found
        if phentsize != elf.PHDR_SIZE or not 0 < phnum <= PHNUM_MAX or phoff > PHOFF_MAX:
            raise CoreError(
                "elfcorehdr at 0x%x is broken: phoff %d, phentsize %d, phnum %d"
                % (address, phoff, phentsize, phnum)
            )
        return _mem(address + phoff, phnum * elf.PHDR_SIZE)

    def _segments(self):
        """Yield (kind, vaddr, paddr, offset, bytes, bytes beyond p_memsz) of each header."""
        for at in range(0, len(self._table), elf.PHDR_SIZE):
            fields = struct.unpack_from(elf.PHDR, self._table, at)
            kind, _, offset, vaddr, paddr, stored, size, _ = fields
            if size or stored:
                yield kind, vaddr, paddr, offset, size, max(stored - size, 0)

    def _loads(self, kernel):
        """Yield the kernel's mapping of itself, or everything else, as it stands in the header."""
        for kind, vaddr, paddr, source, size, _ in self._segments():
            if kind != elf.PT_LOAD or not size or not _is_memory(paddr, source, size):
                continue
            if vaddr + size > 1 << 64:
                # kexec-tools writes -1 for memory that has no mapping.
                vaddr = 0
            if (vaddr >= KERNEL_MAP) == kernel:
                yield Range(source, paddr, vaddr, size)

    def _read_kernel(self):
        found = []
        for area in _joined(self._loads(True)):
            for part in area.without(*self._hole):
                if len(found) < KERNEL_MAPPINGS_MAX:
                    found.append(part)
                else:
                    self._leave_out(
                        "the mapping of the kernel at 0x%x is one too many" % part.vaddr
                    )
        return found

    def _read_notes(self, address, size):
        """Take the notes of one PT_NOTE up to the first empty one; a damaged one ends them."""
        try:
            if size > NOTE_MAX:
                raise CoreError("it has %d bytes" % size)
            raw = _mem(address, size)
        except CoreError as e:
            self._leave_out("a PT_NOTE at 0x%x is unusable: %s" % (address, e))
            return
        at = 0
        while at + elf.NOTE_SIZE <= size:
            namesz, descsz, _ = struct.unpack_from(elf.NOTE, raw, at)
            if namesz == 0:
                break
            desc = at + elf.NOTE_SIZE + (namesz + 3) // 4 * 4
            end = desc + (descsz + 3) // 4 * 4
            if end > size:
                self._leave_out("a note at 0x%x is damaged" % (address + at))
                break
            name = raw[at + elf.NOTE_SIZE : at + elf.NOTE_SIZE + namesz]
            if namesz == len(VMCOREINFO) and bytes(name) == VMCOREINFO:
                self._vmcoreinfo = bytes(raw[desc : desc + descsz])
            at = end
        if at == 0:
            return
        if self._notes_size + at > NOTES_MAX or len(self.notes) == NOTES_COUNT_MAX:
            self._leave_out("the notes at 0x%x are more than can be kept" % address)
            return
        self._notes_size += at
        self.notes.append((address, at))

    def _leave_out(self, why):
        if len(self.problems) < PROBLEMS_MAX:
            self.problems.append("elfcorehdr: %s" % why)
        else:
            self._untold += 1


def _is_memory(paddr, source, size):
    return paddr + size <= ADDRESS_MAX and source + size <= ADDRESS_MAX


def _joined(loads):
    """Yield ranges, each with those that follow it at once."""
    last = None
    for area in loads:
        if last is not None and last.takes(area):
            continue
        if last is not None:
            yield last
        last = area
    if last is not None:
        yield last


def _mem(address, size):
    """Map memory at a physical address from the crashed kernel. Raises CoreError."""
    # The first page is never mapped, so that a null pointer is a trap.
    if not PAGE_SIZE <= address <= ADDRESS_MAX - size:
        raise CoreError("elfcorehdr: 0x%x bytes at 0x%x are no memory" % (size, address))
    try:
        return hw.mem(address, size)
    except ValueError as e:
        raise CoreError("elfcorehdr: %s" % e)
