"""`pvdump collect`: get the dump off a target, as a KDUMP file or an ELF vmcore.

Called by the command line and by the demo. The rules: of the target nothing is written but the note
in its superblock that the dump was collected; the result appears whole and in one step, or not at
all; what cannot be read of a dump costs no more than itself, and is told to the readers.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

from pvfw import superblock
from pvfw.errors import TargetRefused

from ..arguments import file_name, output_name
from ..streams import complain, tell
from . import agechunks, decryption, elfdump, log, source, streamdump, streamlog
from . import compression as compressions
from . import disk as disks
from .disk import MIB, DiskError, TargetDisk
from .meter import SILENT, Meter, Progress

WRONG_USAGE, INCOMPLETE = 2, 3  # exit codes
DESCRIPTION = """\
Copy the dump off a target into a new file, which crash, drgn and makedumpfile open: the ELF vmcore
as it is, or a compressed KDUMP file. When all that the target has of it is there, the target's
superblock gets a note, for `pvdump prepare --again`; nothing else of the target is written. With
--log OUT is the crashed kernel's log alone, and nothing is noted. An encrypted dump needs
--identity; without, it is checked and saved as it is, in OUT.age. Such a file, or what `age
--decrypt` made of it, may stand in place of DISK."""
EPILOG = """\
exit codes: 0 done; 1 refused or failed; 2 wrong usage; 3 part of the dump is missing, what there is
was collected and is marked incomplete; with --log: part of the log is missing, OUT has the rest"""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.description, parser.epilog = DESCRIPTION, EPILOG
    parser.add_argument("disk", type=file_name, metavar="DISK")
    parser.add_argument(
        "out",
        type=output_name,
        metavar="OUT",
        help="file to be made, must not exist; - for standard output, where kdump has "
        "makedumpfile's flattened form",
    )
    parser.add_argument(
        "--format",
        choices=("elf", "kdump"),
        help="of the file; default: kdump, of a dump that is an ELF vmcore elf",
    )
    parser.add_argument(
        "--compress",
        choices=compressions.NAMES,
        default="",
        help="of a kdump file's pages; zstd needs Python 3.14 or python3-zstandard, zlib suits old "
        "readers; default: zstd where this Python has it, else zlib",
    )
    parser.add_argument(
        "--identity",
        type=file_name,
        metavar="FILE",
        help="file with private keys, as of `age --identity`, to decrypt an encrypted dump; needs "
        "the program age or the Python module pyrage",
    )
    parser.add_argument(
        "--salvage",
        action="store_true",
        help="do not look at the superblock: take its copy at the target's end, or "
        "without that what stands behind it, by its own headers",
    )
    parser.add_argument(
        "--log",
        action="store_true",
        help="only the crashed kernel's log, as text; reads no more of the dump than that needs",
    )


def run(options: argparse.Namespace) -> int:
    """Run the command. Returns the exit code."""
    if options.compress and options.format == "elf":
        complain("collect", "--compress is for --format kdump")
        return WRONG_USAGE
    if options.log and (options.format or options.compress):
        complain("collect", "--log is text and has no --format or --compress")
        return WRONG_USAGE
    if options.log:
        missing = collect_log(options.disk, options.out, options.salvage, options.identity)
        for line in missing:
            complain("collect", line)
        return INCOMPLETE if missing else 0
    with Meter() as meter:
        done = collect(
            options.disk,
            options.out,
            meter,
            options.salvage,
            options.format or ("kdump" if options.compress else ""),
            options.compress,
            options.identity,
        )
    how = f", KDUMP, compression: {done.compression}" if done.compression else ""
    if done.encrypted:
        how = ", still encrypted: `pvdump collect --identity FILE` or `age --decrypt` opens it"
    say = complain if done.out is None else tell
    say("collect", f"{done.out or 'standard output'}: {meter}{how}")
    if done.cause:
        say("collect", f"why the kernel died: {done.cause}")
    if done.alone:
        say("collect", "log, notes and stacks alone, as the dump's level says")
    if done.unnoted:
        complain("collect", f"the target does not note it as collected: {done.unnoted}")
    if not done.reason:
        return 0
    complain("collect", f"the dump is partial: {done.reason}")
    for line in done.detail:
        complain("collect", line)
    if done.encrypted:
        complain("collect", "it opens up to the first place where something is missing")
        return INCOMPLETE
    mark = "is" if done.marked else "could not be"
    lost = done.missing + done.unreadable
    lack = f"{lost / MIB:.1f} MiB are missing; " if lost else ""
    complain("collect", f"{lack}the header {mark} marked incomplete")
    return INCOMPLETE


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

    Raises:
        DiskError: the target or the file cannot be used.
        TargetRefused: there is no dump to be had, or not in this format.
        DumpError: this Python lacks what that needs.
    """
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
    return replace(done, unnoted=_note(path, block, out, lost), out=out)


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


def _note(path: Path, block: superblock.Superblock | None, out: Path | None, lost: str) -> str:
    """Note on the target that its dump was collected. Returns why that was not done, or ""."""
    if block is not None and source.is_file(block):
        return ""
    if block is None or block.state == superblock.WRITING:
        return "its superblock does not say that the dump has ended"
    if out is None:
        return "standard output does not say whether the dump has arrived"
    if lost:
        return "part of the disk could not be read"
    try:
        with disks.writing(path) as disk:
            source.refuse_changed(disk, block)
            block.collected = int(time.time())
            disk.write_superblock(block)
    except (DiskError, TargetRefused) as error:
        return str(error)
    return ""
