"""What a disk is made of: bytes in memory, or a sparse file.

Used by block backends. Offsets and lengths are bytes.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol

SECTOR = 512


class Sink(Protocol):
    size: int

    def read(self, offset: int, length: int) -> bytes: ...

    def write(self, offset: int, data: bytes) -> None: ...

    def flush(self) -> None: ...


class Memory:
    """data: the disk's content; flushes: how often it was made to last."""

    def __init__(self, data: bytes | bytearray | int) -> None:
        """data: the content, or the number of zeroes that it is."""
        self.data = bytearray(data)
        self.size = len(self.data)
        self.flushes = 0

    def read(self, offset: int, length: int) -> bytes:
        return bytes(self.data[offset : offset + length])

    def write(self, offset: int, data: bytes) -> None:
        self.data[offset : offset + len(data)] = data

    def flush(self) -> None:
        self.flushes += 1


class File:
    """path: a file that is there; it may be sparse."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDWR)
        self.size = os.fstat(self._fd).st_size
        self.flushes = 0

    def read(self, offset: int, length: int) -> bytes:
        return os.pread(self._fd, length, offset)

    def write(self, offset: int, data: bytes) -> None:
        os.pwrite(self._fd, data, offset)

    def flush(self) -> None:
        os.fdatasync(self._fd)
        self.flushes += 1

    def close(self) -> None:
        os.close(self._fd)
