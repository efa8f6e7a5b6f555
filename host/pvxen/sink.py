"""The content of a disk of the embedded Xen: bytes in memory.

Used by tests; files and NBD servers are in pvdump.blkback.sink, whose protocol this has.
"""

from __future__ import annotations


class Memory:
    """A sink in memory.

    Args:
        data: the content, or a number of zero bytes.

    Attributes:
        data (bytearray): the content.
        flushes (int): number of flushes.
    """

    direct: int | None = None
    sector_size = 512
    physical = 512
    granularity = 4096

    def __init__(self, data: bytes | bytearray | int) -> None:
        self.data = bytearray(data)
        self.size = len(self.data)
        self.flushes = 0

    def read(self, offset: int, buffers: list[memoryview]) -> None:
        """Fill the buffers from a byte offset on."""
        for buffer in buffers:
            buffer[:] = self.data[offset : offset + len(buffer)]
            offset += len(buffer)

    def write(self, offset: int, buffers: list[memoryview]) -> None:
        """Write the buffers from a byte offset on."""
        for buffer in buffers:
            self.data[offset : offset + len(buffer)] = buffer
            offset += len(buffer)

    def flush(self) -> None:
        """Count the flush."""
        self.flushes += 1

    def discard(self, offset: int, length: int) -> None:
        """Zero a range."""
        self.data[offset : offset + length] = bytes(length)

    def measure(self) -> None:
        """Do nothing: the size stays."""

    def close(self) -> None:
        """Do nothing: no resource is held."""
