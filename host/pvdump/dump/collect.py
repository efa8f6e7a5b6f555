"""Gets the dump off a target, as a KDUMP file or an ELF vmcore.

Used by `pvdump collect` and by the demo. The rules: of the target nothing is written but the note
in its superblock that the dump was collected; the result appears whole and in one step, or not at
all; what cannot be read of a dump costs no more than itself, and is told to the readers.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from pathlib import Path

from pvfw import superblock
from pvfw.errors import TargetRefused

from . import agechunks, decryption, elfdump, log, source, streamdump, streamlog
from . import compression as compressions
from . import disk as disks
from .disk import DiskError, TargetDisk
from .meter import SILENT, Progress
from .newfile import refuse_input


@dataclass(frozen=True)
class Collected:
    """The result of collecting a dump.

    Attributes:
        size: bytes of the dump that were used.
        missing: bytes that an ELF vmcore has beyond them, as far as that is known.
        unreadable: bytes of `size` that the file has not, because the disk could not be read there.
        reason: why something is missing, or "".
        marked: whether the file says so.
        detail: a line for each place of a stream that is damaged, but for very many.
        compression: of a KDUMP file; "" of an ELF file.
        unnoted: why the target does not say that the dump was collected, or "".
        lost: what could not be read of the target, though it is there, or "".
        out: the file; None for standard output.
        encrypted: whether it is an age file.
        cause: why the kernel died, as far as its log says it; "" where it does not.
        alone: whether the log, the notes and the stacks are all that the dump was to have.
    """

    size: int
    missing: int = 0
    unreadable: int = 0
    reason: str = ""
    marked: bool = False
    detail: list[str] = field(default_factory=list)
    compression: str = ""
    unnoted: str = ""
    lost: str = ""
    out: Path | None = None
    encrypted: bool = False
    cause: str = ""
    alone: bool = False


def collect(
    path: Path,
    out: Path | None,
    progress: Progress = SILENT,
    salvage: bool = False,
    form: str = "elf",
    compress: str = "",
    identity: Path | None = None,
    noted: bool = True,
) -> Collected:
    """Make a file of the dump on a target.

    Args:
        path: of the target, or of a file with a stream or an age file.
        out: of the file; None for standard output.
        progress: is told the size, and the bytes that each step has copied.
        salvage: do not believe the superblock at the target's start.
        form: "elf" or "kdump"; "" for kdump, or elf where the dump is an ELF vmcore.
        compress: of a KDUMP file's pages, see compression.find().
        identity: of a file with private keys. Without one an encrypted dump is saved as it is, with
            ".age" at the end of its name, if form is "".
        noted: whether the target is to note that its dump was collected.

    Raises:
        DiskError: the target or the file cannot be used.
        TargetRefused: there is no dump to be had, or not in this format.
        DumpError: this Python lacks what that needs.
    """
    refuse_input(out, [path, *filter(None, [identity])])
    with disks.reading(path) as disk:
        block = source.block(disk, salvage)
        if block is not None and block.version != superblock.VERSION_ELF:
            is_age = block.format == superblock.FORMAT_AGE
            if is_age and identity is None:
                out = agechunks.name_for(out, form)
                done = _saved(disk, block, out, progress)
            elif is_age and identity is not None:
                with decryption.opened(disk, block, identity, out) as (clear, told):
                    done = _of_stream(clear, told, out, progress, form or "kdump", compress)
                done = replace(done, detail=clear.chunks.damage.lines + done.detail)
            else:
                done = _of_stream(disk, block, out, progress, form or "kdump", compress)
            lost = "part of the dump is damaged" if done.detail else ""
        else:
            done, lost = _of_elf(disk, block, out, progress, form or "elf", compress)
    unnoted = _unnoted(path, block, out, lost, salvage) if noted else ""
    return replace(done, unnoted=unnoted, lost=lost, out=out)


def _saved(
    disk: TargetDisk, block: superblock.Superblock, out: Path | None, progress: Progress
) -> Collected:
    made = agechunks.save(disk, block, out, progress)
    return Collected(made.size, reason=made.reason, detail=made.damage, encrypted=True)


def _of_elf(
    disk: TargetDisk,
    block: superblock.Superblock | None,
    out: Path | None,
    progress: Progress,
    form: str,
    compress: str,
) -> tuple[Collected, str]:
    """Collect an ELF vmcore. Returns the result, and what could not be read or ""."""
    dump = source.salvaged(disk) if block is None else source.recorded(disk, block)
    how = None
    if form == "elf":
        lost, marked = elfdump.copy_elf(disk, dump, out, progress)
    else:
        how = compressions.find(compress)
        lost, marked = elfdump.make_kdump(disk, dump, out, progress, how), True
    reason = dump.reason or lost.reason
    done = Collected(
        dump.size,
        dump.whole - dump.size,
        lost.size,
        reason,
        marked and bool(reason),
        compression=how.name if how else "",
    )
    return done, lost.reason


def _of_stream(
    disk: TargetDisk,
    block: superblock.Superblock,
    out: Path | None,
    progress: Progress,
    form: str,
    compress: str,
) -> Collected:
    how = compressions.find(compress, True) if form == "kdump" else None
    if how is None:
        made = streamdump.make_elf(disk, block, out, progress)
    else:
        made = streamdump.make_kdump(disk, block, out, progress, how)
    return Collected(
        made.size,
        reason=made.reason,
        marked=made.marked,
        detail=made.damage,
        cause=made.cause,
        alone=made.alone,
        compression=how.name if how else "",
    )


def collect_log(
    path: Path, out: Path | None, salvage: bool, identity: Path | None = None
) -> list[str]:
    """Write the kernel's log of the dump on a target to a new file.

    Args:
        path, out, salvage, identity: as of collect().

    Returns:
        lines on what the log lacks; none if it is whole.

    Raises: as collect().
    """
    refuse_input(out, [path, *filter(None, [identity])])
    with disks.reading(path) as disk:
        block = source.block(disk, salvage)
        if block is not None and block.format == superblock.FORMAT_AGE:
            if identity is None:
                raise agechunks.key_needed()
            with decryption.opened(disk, block, identity, out, False) as (clear, told):
                return streamlog.write_log(clear, told, out)
        if block is not None and block.version != superblock.VERSION_ELF:
            return streamlog.write_log(disk, block, out)
        return log.collect(disk, block, out)


def _unnoted(
    path: Path, block: superblock.Superblock | None, out: Path | None, lost: str, salvage: bool
) -> str:
    """Note on the target that its dump was collected. Returns why that was not done, or ""."""
    if block is not None and source.is_file(block):
        return ""
    if block is None or block.state == superblock.WRITING:
        return "its superblock does not say that the dump has ended"
    if out is None:
        return "standard output does not say whether the dump has arrived"
    if lost:
        return "part of the disk could not be read"
    if salvage and not _first_tells(path, block):
        return "its superblock does not tell of this dump"
    try:
        note(path, block)
    except (DiskError, TargetRefused) as error:
        return str(error)
    return ""


def _first_tells(path: Path, block: superblock.Superblock) -> bool:
    """Tell whether the superblock at a target's start tells of the dump that was collected."""
    try:
        with disks.reading(path) as disk:
            return not source.is_other(block, disk.superblock())
    except (DiskError, TargetRefused):
        return False


def note(path: Path, block: superblock.Superblock) -> None:
    """Note on a target that its dump was collected.

    Args:
        path: of the target.
        block: its superblock, as it was when the dump was copied.

    Raises:
        DiskError, TargetRefused: it has another dump meanwhile, or cannot be written.
    """
    with disks.writing(path) as disk:
        source.refuse_changed(disk, block)
        block.collected = int(time.time())
        disk.write_superblock(block)
