"""The notes of a vmcore: those of the CPUs, and VMCOREINFO.

Used by collect and log. The rule: a guest wrote them, so each length is checked before it is
followed, and damaged notes cost only what they would have told.
Source: elf(5), "Notes"; Linux kernel/vmcore_info.c.
"""

from __future__ import annotations

import re
import struct

from pvfw import elf

from .disk import TargetDisk
from .vmcore import Header

NHDR = struct.Struct(elf.NOTE)
NT_PRSTATUS = 1
# 4 MiB hold the notes of 8192 CPUs and of the kernel. They are kept in memory.
SIZE_MAX = 4 << 20


def read(disk: TargetDisk, offset: int, header: Header) -> tuple[bytes, int]:
    """Read the notes of a vmcore, SIZE_MAX bytes of them at most.

    Args:
        disk: open for reading.
        offset: where the vmcore begins, bytes.
        header: of the vmcore.

    Returns:
        the notes, and how many of their bytes are zeros because they are unreadable.

    Raises:
        DiskError: the disk cannot be read.
    """
    raw, lost = b"", 0
    for each in header.segments():
        if each.kind == elf.PT_NOTE:
            size = min(each.filesz, SIZE_MAX - len(raw))
            data, bad = disk.read_around(offset + each.offset, size)
            raw += data
            lost += sum(count for _, count in bad)
    return raw, lost


def value(lines: bytes | memoryview, key: str) -> bytes:
    """Return the value of a line KEY=VALUE of VMCOREINFO's text, b"" without one."""
    pattern = rb"^" + re.escape(key.encode()) + rb"=([^\0\n]{0,256})"
    found = re.search(pattern, lines, re.MULTILINE)
    return bytes(found[1]) if found else b""


class Notes:
    """The notes of a vmcore.

    Args:
        raw: all of them, as in PT_NOTE.

    Attributes:
        raw: as given.
        prstatus: (offset in raw, bytes) of the registers of each CPU that has a note.
        vmcoreinfo: (offset in raw, bytes) of the text of VMCOREINFO; (0, 0) without one.
    """

    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        self.prstatus: list[tuple[int, int]] = []
        self.vmcoreinfo = (0, 0)
        at = 0
        while at + NHDR.size <= len(raw):
            namesz, descsz, kind = NHDR.unpack_from(raw, at)
            begin = at + NHDR.size + (namesz + 3) // 4 * 4
            if not namesz or begin + descsz > len(raw):
                break
            name = raw[at + NHDR.size : at + NHDR.size + min(namesz, 16)].rstrip(b"\0")
            if name == b"CORE" and kind == NT_PRSTATUS:
                self.prstatus.append((begin, descsz))
            elif name == b"VMCOREINFO":
                self.vmcoreinfo = (begin, descsz)
            at = begin + (descsz + 3) // 4 * 4

    @property
    def cpus(self) -> int:
        """CPUs that have a note."""
        return len(self.prstatus)

    def text(self, key: str) -> bytes:
        """Return the value of a line KEY=VALUE of VMCOREINFO, b"" without one."""
        begin, size = self.vmcoreinfo
        return value(memoryview(self.raw)[begin : begin + size], key)

    def number(self, key: str) -> int:
        """Return a decimal value of VMCOREINFO, 0 where there is none in 64 bits with a sign."""
        text = self.text(key)
        value = int(text) if re.fullmatch(rb"-?[0-9]{1,19}", text) else 0
        return value if -(1 << 63) <= value < 1 << 63 else 0
