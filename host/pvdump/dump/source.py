"""The dump on a target: where its vmcore is, how much of it there is, and its checked headers.

Used by collect. The rule: the superblock tells what the guest wrote; where it is lost, the vmcore's
own header has to. A file that holds a stream, or an age file, and nothing else is a source too.
"""

from __future__ import annotations

from dataclasses import dataclass

from pvfw import chunks, superblock
from pvfw.errors import TargetRefused

from .disk import PAGE, BadPlace, DiskError, TargetDisk
from .vmcore import Header

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


def block(disk: TargetDisk, salvage: bool) -> superblock.Superblock | None:
    """Return the superblock of the dump on a target.

    Args:
        disk: open for reading.
        salvage: take its copy, or where that tells of no dump, what the first chunk behind it
            tells; None where there is no chunk, but perhaps a vmcore.

    Raises: as TargetDisk.superblock().
    """
    if not salvage:
        try:
            return disk.superblock()
        except TargetRefused:
            found = _file(disk)
            if found is None:
                raise
            return found
    copy = disk.superblock_copy()
    if copy is not None and copy.state != superblock.READY:
        return copy
    raw, _ = disk.read_around(superblock.DATA_OFFSET, chunks.HEADER_SIZE)
    header = chunks.decode(raw, None, 0)
    if header is None:
        return None
    found = superblock.Superblock(NO_UUID, disk.size // PAGE * PAGE)
    found.dump, found.state = header.dump, superblock.PARTIAL
    if header.kind == chunks.AGE:
        found.format = superblock.FORMAT_AGE
    found.reason = "the superblock was not looked at"
    return found


def _file(disk: TargetDisk) -> superblock.Superblock | None:
    """Return what a superblock would say of a file that begins with a stream or an age file.

    None where it begins otherwise, as a target does.
    """
    raw = disk.read_around(0, chunks.HEADER_SIZE)[0]
    header = chunks.decode(raw, None, 0)
    is_age = raw.startswith(chunks.AGE_INTRO)
    if header is None and not is_age:
        return None
    found = superblock.Superblock(NO_UUID, disk.size + superblock.COPY_SIZE)
    found.state = superblock.COMPLETE
    found.data_offset = 0
    found.dump_size = found.written = disk.size
    if is_age:
        found.format = superblock.FORMAT_AGE
    else:
        found.dump = header.dump
    return found


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
        size, reason = block.written, "the guest is still writing, or was ended while it wrote"
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
    """Read the superblock; the copy where it is lost, or tells of another dump than before."""
    copy = disk.superblock_copy()
    try:
        first = disk.superblock()
    except (BadPlace, TargetRefused):
        if copy is None:
            raise
        return copy
    return copy if copy is not None and first.dump != before.dump == copy.dump else first


def refuse_changed(disk: TargetDisk, before: superblock.Superblock) -> None:
    """Refuse a dump that was replaced while it was copied. One that grew is as good as before.

    Raises:
        DiskError: it was replaced, or the disk cannot be read.
    """
    _refuse_other(disk, before, disk.superblock())


def _refuse_other(
    disk: TargetDisk, before: superblock.Superblock, after: superblock.Superblock
) -> None:
    same = ("uuid", "size", "data_offset", "dump_size", "started", "dump")
    if any(getattr(before, name) != getattr(after, name) for name in same) or (
        after.written < before.written
    ):
        raise DiskError(f"{disk.path} was changed while it was copied: collect it again")
