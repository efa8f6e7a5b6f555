"""Small targets and vmcores for the tests of the command line."""

import struct
from pathlib import Path

from pvfw import target

MIB = 1 << 20
PAGE = 4096
SIZE = 8 * MIB
NOTE = struct.pack("<III", 11, 12, 0) + b"VMCOREINFO\0\0" + b"OSRELEASE=6\n"
RANGES = ((0x1000, 5 * PAGE), (0x100000, 600 * PAGE))  # physical address, bytes


def vmcore() -> bytes:
    """An ELF vmcore with a note and two ranges; every third page of RAM is zero."""
    phnum = 1 + len(RANGES)
    ehdr = struct.pack(
        "<4sBBBB8sHHIQQQIHHHHHH",
        *(b"\x7fELF", 2, 1, 1, 0, bytes(8), 4, 62, 1, 0, 64, 0, 0, 64, 56, phnum, 0, 0, 0),
    )
    notes = 64 + 56 * phnum
    phdrs = [struct.pack("<IIQQQQQQ", 4, 0, notes, 0, 0, len(NOTE), len(NOTE), 0)]
    at = PAGE
    pages = b""
    for paddr, size in RANGES:
        phdrs.append(struct.pack("<IIQQQQQQ", 1, 7, at, 0, paddr, size, size, 0))
        for page in range(size // PAGE):
            pages += bytes(PAGE) if page % 3 == 0 or 100 <= page < 200 else page.to_bytes(8) * 512
        at += size
    return (ehdr + b"".join(phdrs) + NOTE).ljust(PAGE, b"\0") + pages


def make(path: Path, state: int, data: bytes, written: int | None = None) -> target.Superblock:
    """A target file in the given state that holds the vmcore `data` up to `written`."""
    block = target.Superblock(bytes(range(16)), SIZE)
    block.state = state
    if state != target.READY:
        block.dump_size = len(data)
        block.written = len(data) if written is None else written
        block.started, block.ended = 1_700_000_000, 1_700_000_004
        block.crash_vcpu = 1
        block.release = "6.1.0-test"
    if state == target.PARTIAL:
        block.reason = "xvdb: write at sector 2048: I/O error"
    raw = block.encode().ljust(block.data_offset, b"\0")
    raw += data[: block.written]
    # What was on the disk before must never get into a dump.
    path.write_bytes(raw + b"\xa5" * (SIZE - len(raw)))
    return block
