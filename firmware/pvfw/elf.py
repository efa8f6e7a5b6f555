"""The ELF structures of a 64-bit little-endian x86 core file: their layout, and how to make them.

Used by oldmem, which reads such a header from memory, by vmcore, which writes one, and by the host,
which reads it again. Rule: only the layout is known here; what the fields mean for a dump is not.
Source: System V ABI, "Object Files"; include/uapi/linux/elf.h.
"""

import struct

EHDR = "<4sBBBB8sHHIQQQIHHHHHH"
EHDR_SIZE = 64
PHDR = "<IIQQQQQQ"
PHDR_SIZE = 56
NOTE = "<III"
NOTE_SIZE = 12
MAGIC = b"\x7fELF"
ELFCLASS64 = 2
ELFDATA2LSB = 1
EV_CURRENT = 1
ET_CORE = 4
EM_X86_64 = 62
PT_LOAD = 1
PT_NOTE = 4
PF_RWX = 7
# The most program headers of a vmcore, for the image that writes it and the host that reads it.
PHNUM_MAX = 16384


def core_header(phnum):
    """Make the ELF header of a core file whose program headers follow it at once.

    Args:
        phnum: number of program headers.

    Returns: EHDR_SIZE bytes.
    """
    sizes = (EHDR_SIZE, PHDR_SIZE, phnum, 0, 0, 0)
    kind = (MAGIC, ELFCLASS64, ELFDATA2LSB, EV_CURRENT, 0, bytes(8), ET_CORE, EM_X86_64)
    return struct.pack(EHDR, *(kind + (EV_CURRENT, 0, EHDR_SIZE, 0, 0) + sizes))


def program_header(kind, offset, vaddr, paddr, size):
    """Make a program header. p_align is 0: the crash utility takes others for a netdump.

    Args:
        kind: PT_LOAD or PT_NOTE.
        offset: where the segment's bytes are, from the start of the file.
        vaddr, paddr: virtual and physical address of the first byte.
        size: bytes, in the file and in memory.

    Returns: PHDR_SIZE bytes.
    """
    flags = PF_RWX if kind == PT_LOAD else 0
    return struct.pack(PHDR, kind, flags, offset, vaddr, paddr, size, size, 0)


def program_headers(raw):
    """Find the program headers of a core file.

    Args:
        raw: its first EHDR_SIZE bytes.

    Returns: (offset, bytes of each, number) of the program headers, unchecked, or None where this
    is no ELF core header for x86-64.
    """
    fields = struct.unpack_from(EHDR, raw, 0)
    if fields[:3] != (MAGIC, ELFCLASS64, ELFDATA2LSB) or fields[6:8] != (ET_CORE, EM_X86_64):
        return None
    return fields[10], fields[14], fields[15]
