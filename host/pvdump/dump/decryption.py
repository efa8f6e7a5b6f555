"""The stream in an encrypted dump, decrypted with the user's key by age's own tools.

Used by collect. The rules: what was not authenticated is never given out; keys are used by pyrage
or the program age alone; the plaintext stands in a file without a name, its owner's alone, beside
the file that is made of it. Where the dump ends early, its whole pieces up to there are given.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from pathlib import Path
from types import TracebackType
from typing import Any

from pvfw import chunks, superblock
from pvfw.errors import TargetRefused
from pvfw.superblock import Superblock

from . import agetool, source
from .agechunks import AgeChunks
from .agetool import DecryptionError
from .disk import DiskError, TargetDisk
from .prelude import refuse

SIZE_MAX = 1 << 62


class Decrypted(TargetDisk):
    """The content of an age file, decrypted as far as it was asked for.

    Used as a context.

    Args:
        disk: where the age file is.
        block: its superblock.
        identity: path of a file with private keys.
        folder: for the plaintext; None for the system's own.

    Attributes:
        chunks: the AgeChunks.
        failure: why there is no more; "" while there is, and at the file's end.
        got: bytes so far.

    Raises:
        DecryptionError: there is no tool, or no key.
    """

    def __init__(
        self, disk: TargetDisk, block: Superblock, identity: Path, folder: Path | None
    ) -> None:
        self._spool = _spool(folder)
        super().__init__(disk.path, self._spool.fileno())
        self._below = disk, block
        self.chunks = AgeChunks(disk, block)
        self.size = SIZE_MAX
        self.failure = ""
        self.got = 0
        self._identity = identity
        self._ended = False
        self._tool = agetool.begin(self.chunks.pieces(), identity)

    def fill(self, size: int = SIZE_MAX) -> None:
        """Decrypt at least the first `size` bytes, if there are as many.

        Raises:
            DecryptionError: no piece can be decrypted.
            DiskError: there is no room for the plaintext, or the dump cannot be read.
        """
        while self.got < size and not self._ended:
            piece = self._tool.read()
            try:
                os.pwrite(self.fd, piece, self.got)
            except OSError as error:
                raise DiskError(f"the plaintext of {self.path}: {error.strerror}") from error
            self.got += len(piece)
            if not piece:
                self._end()

    def _end(self) -> None:
        self._ended = True
        self.failure = self._tool.failure()
        if self.failure and not self.got:
            raise DecryptionError(
                f"{self.path} cannot be decrypted with the keys in {self._identity}: {self.failure}"
            )

    def read_around(self, offset: int, size: int) -> tuple[bytes, list[tuple[int, int]]]:
        """Read, decrypting what is needed for it."""
        self.fill(offset + size)
        return super().read_around(offset, size)

    def doubt(self) -> str:
        """Do as TargetDisk.doubt()."""
        return source.unchanged(*self._below)

    def __enter__(self) -> Decrypted:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._tool.close()
        self._spool.close()


@contextmanager
def opened(
    disk: TargetDisk,
    block: Superblock,
    identity: Path,
    out: Path | None,
    whole: bool = True,
) -> Iterator[tuple[Decrypted, Superblock]]:
    """Decrypt a dump. Gives the stream in it, and what a superblock would say of that.

    Args:
        disk: open for reading.
        block: its superblock, of FORMAT_AGE.
        identity: path of a file with private keys.
        out: what is to be made of it; None for standard output.
        whole: whether all is decrypted at once, or as it is read.

    Raises:
        DecryptionError: there is no tool, or no key that fits.
        TargetRefused: there is no dump.
        DiskError: there is no room for the plaintext, or the disk cannot be read.
    """
    refuse(disk, block)
    with Decrypted(disk, block, identity, out and out.absolute().parent) as clear:
        if whole:
            clear.fill()
        told = copy(block)
        told.format, told.data_offset = superblock.FORMAT_STREAM, 0
        told.size = clear.size
        told.dump_size = told.written = clear.got if whole else 0
        raw = clear.read_around(0, chunks.HEADER_SIZE)[0]
        header = chunks.decode(raw, block.dump or None, 0)
        if header is None or header.kind == chunks.AGE:
            raise TargetRefused(f"{disk.path}: what was encrypted there is no dump of this target")
        told.dump = header.dump
        if clear.failure and told.state == superblock.COMPLETE:
            told.state, told.reason = superblock.PARTIAL, f"decryption: {clear.failure}"
        yield clear, told


def _spool(folder: Path | None) -> Any:
    try:
        return tempfile.TemporaryFile(dir=folder)
    except OSError as error:
        raise DiskError(f"{folder or tempfile.gettempdir()}: {error.strerror}") from error
