"""What a stream tells before its pages: facts of the crash, ranges of memory, notes.

Used by streamdump.py, streamlog.py, agechunks.py and decryption.py. The rule: what is damaged is
passed over and told; a stream with no chunk at all is refused.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from pvfw import chunks, config, superblock
from pvfw.errors import TargetRefused
from xenpv.text import decimal, printable

from . import source
from .disk import TargetDisk
from .kdump import Crash
from .notes import SIZE_MAX, Notes
from .stream import Chunk, Stream, facts, ranges

# Twice what an elfcorehdr can name.
RANGES_MAX = 1 << 17
KINDS = (chunks.PAGES, chunks.RAW)
SECONDS_MAX = (1 << 63) - 1


@dataclass
class Told:
    """What a stream tells before its pages.

    Attributes:
        facts: of the crash.
        memory: (physical address, bytes, virtual address or 0) of each range of RAM.
        notes: as in a PT_NOTE.
        chunks: that it took.
    """

    chunks: int = 0
    facts: dict[str, str] = field(default_factory=dict)
    memory: list[tuple[int, int, int]] = field(default_factory=list)
    notes: bytes = b""

    @property
    def alone(self) -> bool:
        """Whether the log, the notes and the stacks are all that the dump was to have."""
        return self.facts.get("level") == str(config.LOG_ONLY)

    def take(self, chunk: Chunk) -> None:
        """Take a chunk."""
        kind = chunk.header.kind
        self.chunks += 1
        if kind == chunks.FACTS:
            self.facts = self.facts or facts(chunk.payload)
        elif kind == chunks.MEMORY:
            self.memory += ranges(chunk)
            if len(self.memory) > RANGES_MAX:
                raise TargetRefused(f"the dump names more than {RANGES_MAX} ranges of memory")
        elif kind == chunks.NOTES and len(self.notes) < SIZE_MAX:
            self.notes = (self.notes + chunk.payload)[:SIZE_MAX]


def refuse(disk: TargetDisk, block: superblock.Superblock) -> str:
    """Refuse a target that holds no stream. Returns why the stream is not whole, or "".

    Raises:
        TargetRefused: it is ready for a dump.
    """
    if block.state == superblock.READY:
        more = "; `--salvage` takes the older dump behind it" if disk.has_dump() else ""
        raise TargetRefused(f"{disk.path} holds no dump: it is ready for one{more}")
    if block.state == superblock.PARTIAL:
        return block.reason or "no reason recorded"
    if block.state == superblock.WRITING:
        return source.UNENDED
    return ""


def tell(stream: Stream, reason: str) -> Told:
    """Read what a stream tells before its pages.

    Args:
        stream: the stream.
        reason: why it is not whole, or "".

    Raises:
        TargetRefused: it has no chunk at all.
        DiskError: the disk cannot be read.
    """
    told = Told()
    for chunk in stream.chunks():
        if chunk.header.kind in KINDS:
            break
        told.take(chunk)
    else:
        if not told.chunks:
            raise TargetRefused(
                f"{stream.disk.path}: nothing to collect, no chunk of the dump is there"
                f"{reason and ': '}{reason}"
            )
    return told


def crash(told: Told, block: superblock.Superblock) -> Crash:
    """Return what a KDUMP file's headers tell of the crash."""
    notes = Notes(told.notes)
    release = printable(notes.text("OSRELEASE")) or block.release
    vcpu = block.crash_vcpu
    if vcpu == superblock.UNKNOWN_VCPU:
        vcpu = decimal(told.facts.get("vcpu", ""), 0, superblock.UNKNOWN_VCPU - 1) or 0
    started = block.started or decimal(told.facts.get("started", ""), 0, SECONDS_MAX) or 0
    when = notes.number("CRASHTIME") or min(started, SECONDS_MAX)
    return Crash(notes, release, when, vcpu)
