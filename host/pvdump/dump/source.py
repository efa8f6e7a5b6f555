"""The dump on a target: where its vmcore is, how much of it there is, and its checked headers.

Used by collect. The rule: the superblock tells what the guest wrote; where it is lost, the vmcore's
own header has to. A file that holds a stream, or an age file, and nothing else is a source too.
"""

from __future__ import annotations

from dataclasses import dataclass

from pvfw import chunks, superblock
from pvfw.errors import TargetRefused

from . import salvage as salvaging
from .disk import PAGE, BadPlace, DiskError, TargetDisk
from .vmcore import Header

# Why a dump is not whole whose superblock does not say that it has ended.
UNENDED = "the guest is still writing, or was ended while it wrote"
NO_UUID = bytes(16)  # of what block() makes up


@dataclass(frozen=True)
class Dump:
    """The dump on a target.

    Attributes:
        offset: where the vmcore begins, bytes.
        size: bytes of it that are there.
        whole: bytes that it has in all.
        reason: why it is not all there, or "".
        header: its headers, cut to what is there.
        block: the superblock, None if it was not looked at.
    """

    offset: int
    size: int
    whole: int
    reason: str
    header: Header
    block: superblock.Superblock | None


class AgeFile(superblock.Superblock):
    """What a superblock would say of an age file that stands alone, not in chunks."""

    def __init__(self, size: int) -> None:
        super().__init__(NO_UUID, size)  # type: ignore[no-untyped-call]


def block(disk: TargetDisk, salvage: bool) -> superblock.Superblock | None:
    """Return the superblock of the dump on a target.

    Args:
        disk: open for reading.
        salvage: do not believe it: take it or its copy, as the dump bears out, or where that is
            none, what the first chunk tells; None where there is no chunk, but perhaps a vmcore.

    Raises: as TargetDisk.superblock().
    """
    if not salvage:
        try:
            return disk.superblock()
        except TargetRefused:
            if (found := _file(disk)) is None:
                raise
            return found
    if (chosen := salvaging.chosen(disk)) is not None:
        return chosen
    header = salvaging.header(disk, superblock.DATA_OFFSET)
    if header is None:
        return _file(disk)
    found = superblock.Superblock(NO_UUID, disk.size // PAGE * PAGE)
    found.dump, found.state = header.dump, superblock.PARTIAL
    found.format = _format(header)
    found.reason = "the superblock was not looked at"
    return found


def _file(disk: TargetDisk) -> superblock.Superblock | None:
    """Return what a superblock would say of a file that begins with a stream or an age file.

    The chunks of a stream, encrypted or not, may have been copied off a target with dd. None where
    it begins otherwise, as a target does.
    """
    raw = disk.read_around(0, chunks.HEADER_SIZE)[0]
    header = chunks.decode(raw, None, 0)
    size = disk.size + superblock.COPY_SIZE
    if raw.startswith(chunks.AGE_INTRO):
        found: superblock.Superblock = AgeFile(size)
        found.format = superblock.FORMAT_AGE
    elif header is not None:
        found = superblock.Superblock(NO_UUID, size)
        found.dump, found.format = header.dump, _format(header)
    else:
        return None
    found.state = superblock.COMPLETE
    found.data_offset = 0
    found.dump_size = found.written = disk.size
    return found


def _format(header: chunks.Header) -> int:
    """Return the format of the dump that a chunk is of."""
    is_age = header.kind == chunks.AGE
    return int(superblock.FORMAT_AGE if is_age else superblock.FORMAT_STREAM)


def is_file(block: superblock.Superblock) -> bool:
    """Tell whether block() made this superblock for a file, which has none."""
    return bool(block.data_offset == 0)


def recorded(disk: TargetDisk, block: superblock.Superblock) -> Dump:
    """Return the ELF vmcore that a superblock of version 1 tells of.

    Raises:
        TargetRefused: there is none, or its headers are not usable.
        DiskError: the disk cannot be read.
    """
    if block.state == superblock.READY:
        more = "; `--salvage` takes the vmcore of an older dump" if disk.has_dump() else ""
        raise TargetRefused(f"{disk.path} holds no dump: it is ready for one{more}")
    if block.state == superblock.COMPLETE:
        size, reason = block.dump_size, ""
    elif block.state == superblock.PARTIAL:
        size, reason = block.written, block.reason or "no reason recorded"
    else:
        size, reason = block.written, UNENDED
    there = max(disk.size - block.data_offset, 0)
    if there < size:
        size, reason = there, f"the target ends at byte {disk.size}; it was larger once"
    header = Header(disk, block.data_offset, size)
    header.cut(size, block.dump_size)
    if reason:
        header.mark_incomplete()
    return Dump(block.data_offset, size, block.dump_size, reason, header, block)


def salvaged(disk: TargetDisk) -> Dump:
    """Return the dump that begins where prepare() has every dump begin. Raises: as recorded()."""
    there = max(disk.size - superblock.DATA_OFFSET, 0)
    header = Header(disk, superblock.DATA_OFFSET, there)
    whole = header.extent()
    size = min(whole, there)
    header.cut(size, whole)
    header.mark_incomplete()
    reason = "the superblock was not looked at; what the guest did not write may be older data"
    return Dump(superblock.DATA_OFFSET, size, whole, reason, header, None)


def look_again(disk: TargetDisk, dump: Dump) -> str:
    """Refuse a dump that was replaced while it was copied, where that can be told.

    Returns:
        a line on why it cannot be told, or "".

    Raises:
        DiskError: it was replaced.
        TargetRefused: its superblock was damaged.
    """
    return "" if dump.block is None else unchanged(disk, dump.block)


def unchanged(disk: TargetDisk, before: superblock.Superblock) -> str:
    """Do as look_again(), for the superblock or copy that was read first."""
    if is_file(before):
        return disk.doubt()
    if before.uuid == NO_UUID:
        return ""
    try:
        after = _again(disk, before)
    except DiskError as error:
        return f"the superblock cannot be read again, to see that the dump is the same: {error}"
    _refuse_other(disk, before, after)
    return ""


def _again(disk: TargetDisk, before: superblock.Superblock) -> superblock.Superblock:
    """Read the superblock; the copy where it is lost, or where the copy alone is as before."""
    copy = disk.superblock_copy()
    try:
        first = disk.superblock()
    except (BadPlace, TargetRefused):
        if copy is None:
            raise
        return copy
    if copy is None or is_other(before, copy) or not is_other(before, first):
        return first
    # One of the same dump that says less than the copy, which --salvage has chosen.
    is_behind = first.uuid == before.uuid and first.dump == before.dump
    return copy if is_behind or first.dump != before.dump else first


def refuse_changed(disk: TargetDisk, before: superblock.Superblock) -> None:
    """Refuse a dump that was replaced while it was copied. One that grew is as good as before.

    Raises:
        DiskError: it was replaced, or the disk cannot be read.
    """
    _refuse_other(disk, before, disk.superblock())


def is_other(before: superblock.Superblock, after: superblock.Superblock) -> bool:
    """Tell whether a superblock is of another dump than one that was read before."""
    same = ("uuid", "size", "data_offset", "dump_size", "started", "dump")
    return after.written < before.written or any(
        getattr(before, name) != getattr(after, name) for name in same
    )


def _refuse_other(
    disk: TargetDisk, before: superblock.Superblock, after: superblock.Superblock
) -> None:
    if is_other(before, after):
        raise DiskError(f"{disk.path} was changed while it was copied: collect it again")
