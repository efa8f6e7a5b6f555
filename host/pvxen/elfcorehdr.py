"""The ELF header of a crashed kernel's memory, put into a machine's RAM as Linux and kexec make it.

For whatever starts the image or its firmware as a crash kernel. Each PT_NOTE gets a page of its
own, larger than its note.
Source: Linux kernel/crash_core.c; kexec-tools kexec/crashdump-elf.c.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterable

NOTE_AREA = 1024
NOTES_BEHIND = 0x10000  # bytes from the header to the notes, by default
KERNEL_TEXT = 0xFFFFFFFF81000000
DIRECT_MAP = 0xFFFF888000000000
PT_LOAD, PT_NOTE = 1, 4
ET_CORE, EM_X86_64 = 4, 62
Load = tuple[int, int, int, int]  # vaddr, paddr, offset, size


def note(name: bytes, kind: int, desc: bytes) -> bytes:
    """Pack one note."""
    name += b"\0"
    padded = [raw + bytes(-len(raw) % 4) for raw in (name, desc)]
    return struct.pack("<III", len(name), len(desc), kind) + b"".join(padded)


def vmcoreinfo(text: bytes) -> bytes:
    """Pack the note that holds VMCOREINFO."""
    return note(b"VMCOREINFO", 0, text)


def cpu_notes(count: int) -> list[bytes]:
    """Pack the notes of `count` CPUs, each with other registers."""
    return [note(b"CORE", 1, bytes([cpu & 0xFF]) * 0x150) for cpu in range(count)]


def ehdr(
    phnum: int,
    phentsize: int = 56,
    machine: int = EM_X86_64,
    kind: int = ET_CORE,
    magic: bytes = b"\x7fELF",
) -> bytes:
    """Pack the ELF header; the defaults are the right values."""
    return struct.pack(
        "<4sBBBB8sHHIQQQIHHHHHH",
        *(
            magic,
            2,
            1,
            1,
            0,
            bytes(8),
            kind,
            machine,
            1,
            0,
            64,
            0,
            0,
            64,
            phentsize,
            phnum,
            0,
            0,
            0,
        ),
    )


def phdr(kind: int, vaddr: int, paddr: int, offset: int, size: int) -> bytes:
    """Pack a program header."""
    flags, align = (0, 4) if kind == PT_NOTE else (7, 0)
    return struct.pack("<IIQQQQQQ", kind, flags, offset, vaddr, paddr, size, size, align)


def build(
    ram: mmap.mmap,
    at: int,
    loads: Iterable[Load],
    notes: Iterable[bytes],
    notes_at: int | None = None,
) -> None:
    """Put an elfcorehdr into memory.

    Args:
        ram: the machine's.
        at: physical address of the header.
        loads: of each PT_LOAD.
        notes: bytes of each PT_NOTE.
        notes_at: physical address of the notes; None: NOTES_BEHIND the header.
    """
    place = at + NOTES_BEHIND if notes_at is None else notes_at
    headers = []
    for raw in notes:
        size = max(NOTE_AREA, len(raw) + 64)
        ram[place : place + size] = raw.ljust(size, b"\0")
        headers.append(phdr(PT_NOTE, 0, place, place, size))
        place += (size + 4095) // 4096 * 4096
    headers += [phdr(PT_LOAD, *load) for load in loads]
    raw = ehdr(len(headers)) + b"".join(headers)
    ram[at : at + len(raw)] = raw
