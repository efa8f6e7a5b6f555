"""A text file of the system, read whole and replaced in one step.

Used by steps.py, and by those that plan a change. The rules: a file that is there keeps owner, mode
and extended attributes; wherever the program ends, the file has the old content or the new one.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from pvfw.errors import DumpError

FILE_MAX = 1 << 20  # bytes
MODE = 0o644  # of a file that is made


class TextFileError(DumpError):
    """A file cannot be read or written; the message names it."""


def read(path: Path) -> str | None:
    """Return a file's text, None where there is none.

    Raises:
        TextFileError: it cannot be read.
    """
    try:
        with path.open("rb") as stream:
            raw = stream.read(FILE_MAX + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise TextFileError(f"{path}: {error.strerror}") from error
    if len(raw) > FILE_MAX:
        raise TextFileError(f"{path} has more than {FILE_MAX} bytes, which no such file has")
    return raw.decode("utf-8", "surrogateescape")


def write(path: Path, text: str | None) -> None:
    """Give a file a content in one step; None removes it. One that is there keeps mode and owner.

    Raises:
        TextFileError: it cannot be written; what was there before is there.
    """
    made = path.with_name(f".{path.name}.pvdump-new")
    try:
        if text is None:
            path.unlink(missing_ok=True)
            return
        made.unlink(missing_ok=True)  # of a run that was killed
        fd = os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(fd, "wb") as stream:  # noqa: PTH123 - a descriptor
            stream.write(text.encode("utf-8", "surrogateescape"))
            os.fchmod(fd, MODE)
            if path.exists():
                _take_over(path, made)
            stream.flush()
            os.fsync(fd)
        made.replace(path)
    except OSError as error:
        raise TextFileError(f"{path}: {error.strerror}") from error


def digest(text: str | None) -> str:
    """Return a digest of a content; "" of a file that is not there."""
    if text is None:
        return ""
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def _take_over(path: Path, made: Path) -> None:
    """Give a new file owner, mode and extended attributes of the one whose place it takes."""
    status = path.stat()
    os.chown(made, status.st_uid, status.st_gid)
    made.chmod(status.st_mode & 0o7777)
    for name in os.listxattr(path):
        os.setxattr(made, name, os.getxattr(path, name))
