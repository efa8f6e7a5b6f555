"""The files that guests are created from: where they are, by the guests' names.

Used by toolstack.py, `pvdump enable` and `pvdump doctor`. libxl does not keep the name of the file.
The rule: a file that `pvdump enable` was given counts before what lies in /etc/xen, and a name that
several files there have is known by neither.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from . import xlcfg

KNOWN = Path("/var/lib/pvdump/dom0-files.json")  # root's: what is in it is created as root
FOLDERS = (Path("/etc/xen"), Path("/etc/xen/auto"))
FILE_MAX = 1 << 20  # bytes


def text(path: Path) -> str:
    """Read a file. Raises OSError, BadFile."""
    with path.open("rb") as stream:
        data = stream.read(FILE_MAX + 1)
    if len(data) > FILE_MAX or b"\0" in data:
        raise xlcfg.BadFile(f"{path} is no configuration of a guest")
    return data.decode("utf-8", "surrogateescape")


def known() -> dict[str, Path]:
    """Return the files that `pvdump enable` was given, by the guests' names."""
    try:
        found = json.loads(KNOWN.read_bytes())
        return {str(name): Path(str(path)) for name, path in found.items()}
    except (OSError, ValueError, AttributeError):
        return {}


def remember(name: str, path: Path) -> None:
    """Keep the file of a guest. Raises OSError."""
    names = {key: str(value) for key, value in known().items()}
    names[name] = str(path.absolute())
    KNOWN.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    part = KNOWN.with_suffix(".part")
    part.write_text(json.dumps(names, indent=1), encoding="utf-8")
    os.replace(part, KNOWN)  # noqa: PTH105


def lying(folders: tuple[Path, ...] = FOLDERS) -> list[Path]:
    """Return the files of guests in /etc/xen, each once."""
    paths = {path.resolve() for folder in folders for path in folder.glob("*") if path.is_file()}
    return sorted(path for path in paths if _name(path) is not None)


def find(name: str) -> Path | None:
    """Return the file of a guest, if it is known."""
    path = known().get(name)
    if path is not None and path.is_file():
        return path
    found = [path for path in lying() if _name(path) == name]
    return found[0] if len(found) == 1 else None


def _name(path: Path) -> str | None:
    try:
        setting = xlcfg.settings(text(path)).get("name")
    except (OSError, xlcfg.BadFile):
        return None
    return None if setting is None else setting.value
