"""The image that a script runs in: where it is, and whether it is one.

Used by `pvdump script`. The rule: what xl would refuse is told before, in one line.
"""

from __future__ import annotations

from pathlib import Path

from .text import ScriptError

# A wheel's, a package's.
PLACES = (Path(__file__).resolve().parent.parent / "image", Path("/usr/lib/pvdump"))
SIZE_MAX = 64 << 20  # bytes
ELF = b"\x7fELF"


def find(name: str) -> Path:
    """Return pvboot.elf or pvboot.fw in the first of PLACES that has it, else in the last."""
    places = [place / name for place in PLACES]
    return next((path for path in places if path.is_file()), places[-1])


def read(path: Path) -> bytes:
    """Read an image.

    Raises:
        ScriptError: there is none, or it is no ELF file, which both doors need.
        OSError: it cannot be read.
    """
    try:
        with path.open("rb") as stream:
            raw = stream.read(SIZE_MAX + 1)
    except FileNotFoundError:
        raise ScriptError(
            f"there is no image {path}: install pvdump, or name {path.name} with --image"
        ) from None
    if raw[: len(ELF)] != ELF or len(raw) > SIZE_MAX:
        raise ScriptError(f"{path} is no image that xl starts: {path.stem}.elf or .fw is")
    return raw
