"""An image that comes with pvdump: where its file is, and its content.

Used by arm/image.py and script/image.py, which look whether it is of the kind that they need.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pvfw.errors import DumpError

# A wheel's, a package's.
FOLDERS = (Path(__file__).resolve().parent / "image", Path("/usr/lib/pvdump"))
SIZE_MAX = 64 << 20  # bytes


class ImageError(DumpError):
    """The image cannot be used; the message says why."""


def first(places: Sequence[Path]) -> Path:
    """Return the first path where there is a file, else the last."""
    return next((path for path in places if path.is_file()), places[-1])


def read(path: Path) -> bytes:
    """Read an image.

    Raises:
        ImageError: there is none, it is too large, or it cannot be read.
    """
    try:
        with path.open("rb") as stream:
            raw = stream.read(SIZE_MAX + 1)
    except FileNotFoundError:
        raise ImageError(
            f"there is no image {path}: install pvdump, or name it with --image"
        ) from None
    except OSError as error:
        raise ImageError(f"{path}: {error.strerror}") from error
    if len(raw) > SIZE_MAX:
        raise ImageError(f"{path} is no image: it has more than {SIZE_MAX >> 20} MiB")
    return raw
