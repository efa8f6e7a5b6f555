"""What tells of a dump where the superblock at the target's start is not believed: `--salvage`.

Used by source. The rules: of the superblock and its copy at the target's end the one counts that
the dump behind them bears out; that they differ is said, and which one is used. Where neither does,
the first chunk tells what it can.
"""

from __future__ import annotations

from pvfw import chunks, elf, superblock
from pvfw.chunks import Header
from pvfw.errors import TargetRefused
from pvfw.superblock import MIB, Superblock

from ..streams import complain
from .disk import PAGE, BadPlace, TargetDisk

# How far a whole header of a chunk is looked for where the first ones are damaged.
SCAN, STEP = 16 * MIB, MIB
# The last chunk of a stream begins at most as far before its end.
LAST = chunks.padded(chunks.HEADER_SIZE + chunks.PAYLOAD_MAX)
NEITHER, UNENDED, OPEN, ENDED = range(4)  # how much of what a superblock says is borne out


def chosen(disk: TargetDisk) -> Superblock | None:
    """Return the superblock, or the copy of it, that the dump on a target bears out.

    Args:
        disk: open for reading.

    Returns:
        None where neither tells of the dump that is there.

    Raises:
        DiskError: the disk cannot be read.
    """
    first, copy = _first(disk), disk.superblock_copy()
    if copy is None:
        return None
    blocks = {"the superblock": first, "the copy": copy}
    ranks = {
        name: (_rank(disk, block), block.written)
        for name, block in blocks.items()
        if block is not None
    }
    best = max(ranks, key=lambda name: ranks[name])
    is_borne_out = ranks[best][0] > NEITHER
    if not is_borne_out and header(disk, copy.data_offset) is None:
        # There is nothing to hold it against.
        is_borne_out, best = copy.state != superblock.READY, "the copy"
    if first is not None and first.encode() != copy.encode():
        used = f"{best} is used" if is_borne_out else "neither tells of the dump that is there"
        complain(
            "collect",
            f"the superblock ({_shown(first)}) and its copy at the end of {disk.path} "
            f"({_shown(copy)}) differ: {used}",
        )
    return blocks[best] if is_borne_out else None


def header(disk: TargetDisk, start: int) -> Header | None:
    """Return the first whole header of a chunk of the stream that begins at a byte of a disk.

    None where there is none within SCAN bytes, or a vmcore begins there.
    """
    if disk.read_around(start, len(elf.MAGIC))[0] == elf.MAGIC:
        return None
    for at in range(0, min(SCAN, disk.size - start), STEP):
        raw = disk.read_around(start + at, STEP)[0]
        for place in range(0, len(raw), PAGE):
            found = chunks.decode(raw[place : place + chunks.HEADER_SIZE], None, at + place)
            if found is not None:
                return found
    return None


def _first(disk: TargetDisk) -> Superblock | None:
    try:
        return disk.superblock()
    except (BadPlace, TargetRefused):
        return None


def _rank(disk: TargetDisk, block: Superblock) -> int:
    """Tell how much of what a superblock says is borne out by what stands behind it."""
    if block.state == superblock.READY:
        return NEITHER
    if block.version == superblock.VERSION_ELF:
        start = disk.read_around(block.data_offset, len(elf.MAGIC))[0]
        return OPEN if start == elf.MAGIC else NEITHER
    found = header(disk, block.data_offset)
    is_age = block.format == superblock.FORMAT_AGE
    if found is None or found.dump != block.dump or (found.kind == chunks.AGE) != is_age:
        return NEITHER
    if block.state != superblock.COMPLETE:
        return OPEN
    return ENDED if _ends(disk, block) else UNENDED


def _ends(disk: TargetDisk, block: Superblock) -> bool:
    """Tell whether the last chunk of a dump ends where its superblock says."""
    begin = max(block.dump_size - LAST, 0) // PAGE * PAGE
    raw = disk.read_around(block.data_offset + begin, block.dump_size - begin)[0]
    for place in range(0, len(raw), PAGE):
        head = raw[place : place + chunks.HEADER_SIZE]
        found = chunks.decode(head, block.dump, begin + place)
        if found is None:
            continue
        is_last = found.kind == chunks.MANIFEST or (found.kind == chunks.AGE and found.count == 1)
        if is_last and begin + place + found.length() == block.dump_size:
            return True
    return False


def _shown(block: Superblock) -> str:
    state = superblock.STATE_NAMES[block.state]
    return state if block.state == superblock.READY else f"{state}, {block.written / MIB:.1f} MiB"
