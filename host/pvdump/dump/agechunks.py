"""An encrypted dump: the age file that stands on a target in chunks of kind AGE.

Used by collect, which saves it as it is, or decrypts it. The rules: each byte is checked without a
key; a damaged chunk costs none of the file's length, so that the places of all others stay as they
are. A file that was saved so before is read in the same way.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path

from pvfw import chunks, superblock
from pvfw.chunks import Header
from pvfw.errors import DumpError

from . import source
from .disk import PAGE, DiskError, TargetDisk
from .meter import Progress
from .output import OutputFile
from .prelude import refuse
from .stream import Damage
from .streamdump import Made, stdout

SUFFIX = ".age"
PIECE = 1 << 20


class AgeChunks:
    """The age file that a superblock tells of.

    Args:
        disk: open for reading.
        block: its superblock, of FORMAT_AGE.

    Attributes:
        known: bytes of the dump that the superblock says are there.
        limit: bytes that a dump there can have.
        end: bytes of the dump up to the end of the last chunk, once pieces() is through.
        damage: what pieces() found.
        is_whole: whether the file has its end.
    """

    def __init__(self, disk: TargetDisk, block: superblock.Superblock) -> None:
        self._disk = disk
        self._block = block
        self._complete = block.state == superblock.COMPLETE
        self.known = block.dump_size if self._complete else block.written
        self.limit = min(block.room(), max(disk.size - block.data_offset, 0))
        self.end = 0
        self.damage = Damage()
        self.is_whole = False

    def pieces(self) -> Iterator[bytes]:
        """Read and check the whole; yield the file's bytes in order.

        Of a damaged chunk they come as they were read, and in place of a lost one zeros.

        Raises:
            DiskError: the disk cannot be read.
        """
        if isinstance(self._block, source.AgeFile):
            yield from self._file()
            return
        at = place = lost = 0
        while at < self.limit:
            header = self._header(at, place, lost)
            if header is None:
                if at >= self.known:
                    break
                if not lost:
                    self.damage.add(f"no chunk at byte {at} of the dump: its header is damaged")
                lost += PAGE
                at += PAGE
                continue
            payload, problem = self._payload(header, at)
            if problem:
                if at + header.length() > self.known:
                    break
                self.damage.add(f"the encrypted bytes at byte {at}: {problem}")
            while place < header.value:
                zeros = bytes(min(header.value - place, PIECE))
                yield zeros
                place += len(zeros)
            yield payload
            place, lost = header.value + header.size, 0
            at += header.length()
            self.end = at
            if header.count:
                self.is_whole = True
                return
        if self._complete:
            self.damage.add("the end of the encrypted dump is missing")

    def _header(self, at: int, place: int, lost: int) -> Header | None:
        """Read the header at a place of the dump; None where there is none that can be right."""
        raw = self._disk.read_around(self._block.data_offset + at, chunks.HEADER_SIZE)[0]
        header: Header | None = chunks.decode(raw, self._block.dump, at)
        if header is None or header.kind != chunks.AGE or at + header.length() > self.limit:
            return None
        return header if place <= header.value <= place + lost else None

    def _payload(self, header: Header, at: int) -> tuple[bytes, str]:
        """Read the bytes of a chunk. Returns them, and a clause on what is wrong or ""."""
        raw = self._disk.read_around(self._block.data_offset + at, header.length())[0]
        end = chunks.HEADER_SIZE + header.size
        payload = raw[chunks.HEADER_SIZE : end]
        if len(raw) < header.length():
            return payload.ljust(header.size, b"\0"), "the target ends in it"
        if zlib.crc32(payload) != header.crc:
            return payload, "its CRC is wrong"
        wrong = "there are other bytes than zeros behind it" if raw[end:].strip(b"\0") else ""
        return payload, wrong

    def _file(self) -> Iterator[bytes]:
        while piece := self._disk.read(self.end, PIECE):
            self.end += len(piece)
            yield piece
        self.is_whole = True


def name_for(out: Path | None, form: str) -> Path | None:
    """Return the name for an encrypted dump, or refuse to make anything else of it."""
    if form:
        raise key_needed()
    if out is None or out.suffix == SUFFIX:
        return out
    return out.with_name(out.name + SUFFIX)


def key_needed() -> DumpError:
    """Return the error of what only a key can give."""
    return DumpError(
        "the dump is encrypted: give --identity FILE with a private key of one of its recipients; "
        "without --identity, --format, --compress and --log it is saved as it is"
    )


def save(
    disk: TargetDisk, block: superblock.Superblock, out: Path | None, progress: Progress
) -> Made:
    """Write the age file to a new file. Args, Raises: as streamdump.make_kdump()."""
    if isinstance(block, source.AgeFile):
        raise DiskError(
            f"{disk.path} is an encrypted dump already: give --identity FILE to open it"
        )
    reason = refuse(disk, block)
    found = AgeChunks(disk, block)
    size = min(found.known, found.limit)
    progress.expect(size)
    with stdout() if out is None else OutputFile(out, size) as output:
        done = 0
        for piece in found.pieces():
            output.write(piece)
            progress.advance(found.end - done)
            done = found.end
        reason = reason or found.damage.reason() or source.unchanged(disk, block)
        output.publish()
    return Made(found.end, reason, found.damage.lines, 0)
