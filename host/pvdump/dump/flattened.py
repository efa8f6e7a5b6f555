"""makedumpfile's flattened form: a file that is written out of order, through a pipe.

Used by collect for a KDUMP file on standard output. It is a header of 4096 bytes, then records of
an offset, a size and data, all big-endian. `makedumpfile -R` makes the plain file of it; crash and
drgn read it as it is.
Source: makedumpfile IMPLEMENTATION and makedumpfile.h, "flattened format".
"""

from __future__ import annotations

import struct

from .output import OutputStream

HEADER = struct.Struct(">16sqq4064x")
RECORD = struct.Struct(">qq")
START = HEADER.pack(b"makedumpfile", 1, 1)
END = RECORD.pack(-1, -1)


class Flattened:
    """A flattened file on standard output.

    Used as a context, as the outputs in output.py are.

    Args:
        stream: where it goes.

    Raises:
        DiskError: it cannot be written. BrokenPipeError: nobody reads it any more.
    """

    def __init__(self, stream: OutputStream) -> None:
        self._stream = stream
        stream.write(START)

    def put(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        """Write data at an offset of the plain file. Raises: as the class."""
        if data:
            self._stream.write(RECORD.pack(offset, len(data)))
            self._stream.write(data)

    def publish(self) -> None:
        """Write the end record. Raises: as the class."""
        self._stream.write(END)

    def __enter__(self) -> Flattened:
        return self

    def __exit__(self, *exception: object) -> None:
        pass
