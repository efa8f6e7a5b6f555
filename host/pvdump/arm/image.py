"""The image that is loaded: where it is, and whether the kernel would take it.

Used by arm. The rule: what would be refused when it is loaded is told before, in one line.
Source: Linux Documentation/arch/x86/boot.rst; Microsoft's PE Format.
"""

from __future__ import annotations

import struct
from pathlib import Path

from .. import imagefile
from ..imagefile import ImageError

NAME = "pvdump.bin"
# The last is a person's.
PLACES = (*(folder / NAME for folder in imagefile.FOLDERS), Path("/boot", NAME))


def find() -> Path:
    """Return the first of PLACES where there is a file, else the last of them."""
    return imagefile.first(PLACES)


def read(path: Path) -> bytes:
    """Read an image.

    Raises:
        ImageError: there is none, or it is no bzImage that kexec loads.
    """
    raw = imagefile.read(path)
    if len(raw) < 0x264 or raw[0x202:0x206] != b"HdrS":
        raise ImageError(f"{path} is no image that kexec loads: pvdump.bin is")
    return raw


def is_signed(raw: bytes) -> bool:
    """Tell whether an image has a signature, which is not checked.

    Args:
        raw: as read() gives it.
    """
    (pe,) = struct.unpack_from("<I", raw, 0x3C)
    optional = pe + 24  # behind "PE\0\0" and the COFF header
    if raw[:2] != b"MZ" or raw[pe : pe + 4] != b"PE\0\0" or optional + 152 > len(raw):
        return False
    (magic,) = struct.unpack_from("<H", raw, optional)
    (directories,) = struct.unpack_from("<I", raw, optional + 108)
    at, size = struct.unpack_from("<II", raw, optional + 144)  # the fifth: certificates
    return magic == 0x20B and directories > 4 and size > 0 and at + size <= len(raw)
