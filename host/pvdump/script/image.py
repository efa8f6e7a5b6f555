"""The image that a script runs in: where it is, and whether it is one.

Used by `pvdump script`. The rule: what xl would refuse is told before, in one line.
"""

from __future__ import annotations

from pathlib import Path

from .. import imagefile
from ..imagefile import ImageError

ELF = b"\x7fELF"
PLACES = imagefile.FOLDERS


def find(name: str) -> Path:
    """Return pvboot.elf or pvboot.fw in the first of PLACES that has it, else in the last."""
    return imagefile.first([folder / name for folder in PLACES])


def read(path: Path) -> bytes:
    """Read an image.

    Raises:
        ImageError: there is none, or it is no ELF file, which both doors need.
    """
    raw = imagefile.read(path)
    if raw[: len(ELF)] != ELF:
        raise ImageError(f"{path} is no image that xl starts: {path.stem}.elf or .fw is")
    return raw
