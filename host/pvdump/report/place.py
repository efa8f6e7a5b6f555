"""Which vmcore is meant by the name of a file or folder, or where none is named.

Used by the commands report and drgn.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from pvfw.errors import DumpError

from ..arguments import file_name
from ..arm import settings
from ..guest import dumps
from ..streams import pasted

NAME = "vmcore"
ENCRYPTED = "vmcore.age"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the argument that names a dump, and the option for the file of settings."""
    parser.add_argument(
        "vmcore",
        nargs="?",
        type=file_name,
        metavar="VMCORE",
        help="the dump, or a folder with it or with folders of dumps, of which the newest is "
        "taken (default: the folder that the settings name as `directory`, else "
        f"{settings.SETTINGS['directory'].default})",
    )
    settings.add_file(parser)


def named(options: argparse.Namespace) -> Path:
    """Return the vmcore that a command line names, else the newest in the folder of dumps.

    Raises:
        DumpError: there is none, or the settings cannot be read.
        OSError: the folder cannot be read.
    """
    if options.vmcore is not None:
        return find(options.vmcore)
    directory: Path = settings.settled(options)["directory"]
    if not directory.is_dir():
        raise DumpError(f"{directory}: there is no dump, and no such folder")
    return find(directory)


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
    """Return the folders in a folder, those of the newest dumps first, as `pvdump list` has them.

    Of what `pvdump collect` made, its record has the time; of others, the file.
    """
    times = {dump.path: float(dump.facts.time) for dump in dumps.found(path)}
    found = []
    for folder in path.iterdir():
        for name in (NAME, ENCRYPTED):
            if (folder / name).is_file():
                found.append((times.get(folder, (folder / name).stat().st_mtime), folder))
    return [folder for _, folder in sorted(found, reverse=True)]
