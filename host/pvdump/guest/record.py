"""Records: small JSON files in which one command tells another what it did.

Each has one writer. The rules: a record is written whole or not at all, also when the power goes;
it is readable by its owner alone; a damaged one is an error that says which file to remove.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pvfw.errors import DumpError

from ..streams import pasted

ROOT = Path("/")  # of the system; tests lay out one of their own
RUN = Path("run/pvdump")  # below the root; until the next boot
STATE = Path("var/lib/pvdump")
RECORD_MAX = 1 << 20  # bytes


class RecordError(DumpError):
    """A record cannot be read or written; the message names the file and says what to do."""


def save(path: Path, mapping: Mapping[str, Any]) -> None:
    """Write a record, with its folder, in one step.

    Args:
        path: is replaced.
        mapping: of what JSON has.

    Raises:
        RecordError: it cannot be written; what was there before is there.
    """
    content = json.dumps(mapping, indent=1, sort_keys=True).encode() + b"\n"
    try:
        replace(path, content)
    except OSError as error:
        raise RecordError(f"{path}: {error.strerror}") from error


def replace(path: Path, content: bytes) -> None:
    """Write a file that its owner alone can read, with its folder, in one step. Raises OSError."""
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    made = path.with_name(f".{path.name}.new")
    made.unlink(missing_ok=True)  # of a run that was killed
    try:
        fd = os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(fd, "wb") as stream:  # noqa: PTH123 - a descriptor
            stream.write(content)
            stream.flush()
            os.fsync(fd)
        made.replace(path)
    except BaseException:
        made.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def load(path: Path) -> dict[str, Any]:
    """Read a record.

    Returns:
        what save() was given; {} where there is none.

    Raises:
        RecordError: it cannot be read, or is damaged.
    """
    try:
        with path.open("rb") as stream:
            raw = stream.read(RECORD_MAX + 1)
        found = json.loads(raw)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise RecordError(f"{path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise RecordError(f"{path} is damaged: rm {pasted(path)}") from error
    if len(raw) > RECORD_MAX or not isinstance(found, dict):
        raise RecordError(f"{path} is damaged: rm {pasted(path)}")
    return found
