"""makedumpfile's flattened form, in which a KDUMP file passes a pipe.

Used to count what Linux's own crash kernel has written to a disk. The rule: pages are counted by
the bitmap, since makedumpfile's own report of remaining pages is higher than what its file has.
Source: makedumpfile's makedumpfile.h (makedumpfile_header), diskdump_mod.h (disk_dump_header).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

from lab import LabError

BLOCK = 4096
MAGIC = b"makedumpfile\0"
RECORD = struct.Struct(">qq")  # offset in the file, bytes
SIZES = struct.Struct("<2I")  # blocks of the sub header, and of both bitmaps
SIZES_AT = 432


def records(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield (offset in the file, bytes) of the parts of the file that is at a disk's start.

    Raises:
        LabError: There is none, or it ends early.
    """
    with path.open("rb") as stream:
        if not stream.read(BLOCK).startswith(MAGIC):
            raise LabError(f"{path}: not makedumpfile's flattened form")
        while len(head := stream.read(RECORD.size)) == RECORD.size:
            at, size = RECORD.unpack(head)
            if at < 0:
                return
            yield at, stream.read(max(size, 0))
    raise LabError(f"{path}: the flattened form ends early")


def rearranged(path: Path, out: Path) -> None:
    """Write the file itself. Raises: as records()."""
    with out.open("wb") as file:
        for at, data in records(path):
            file.seek(at)
            file.write(data)


def pages(kdump: Path) -> int:
    """Return how many pages a KDUMP file has: the bits of its second bitmap."""
    with kdump.open("rb") as file:
        file.seek(SIZES_AT)
        sub, blocks = SIZES.unpack(file.read(SIZES.size))
        file.seek((1 + sub) * BLOCK + blocks * BLOCK // 2)
        bits = file.read(blocks * BLOCK // 2)
    return int.from_bytes(bits, "little").bit_count()
