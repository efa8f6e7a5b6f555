"""Which vmcore is meant by the name of a file or folder."""

from __future__ import annotations

from pathlib import Path

from pvfw.errors import DumpError

from ..streams import pasted

FOLDER = Path("/var/crash")
NAME = "vmcore"
ENCRYPTED = "vmcore.age"


def find(path: Path) -> Path:
    """Return the vmcore in a folder, else the newest of its folders; a file is taken as it is.

    Raises:
        DumpError: there is none.
        OSError: the folder cannot be read.
    """
    if not path.is_dir():
        return path
    for folder in (path, *_newest_first(path)):
        if (folder / NAME).is_file():
            return folder / NAME
        if (folder / ENCRYPTED).is_file():
            raise DumpError(
                f"{folder / ENCRYPTED} is encrypted: where the key is, "
                f"`pvdump collect --identity KEY {pasted(folder / ENCRYPTED)} NEW` decrypts it"
            )
    raise DumpError(f"{path}: there is no dump, no file named {NAME} in it or in its folders")


def _newest_first(path: Path) -> list[Path]:
    """Return the folders in a folder, those of the newest dumps first."""
    found = []
    for folder in path.iterdir():
        for name in (NAME, ENCRYPTED):
            if (folder / name).is_file():
                found.append(((folder / name).stat().st_mtime, folder))
    return [folder for _, folder in sorted(found, reverse=True)]
