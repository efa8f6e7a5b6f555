"""The targets that are configured, looked at as `pvdump arm` looks at them; nothing is written.

Used by facts.py.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from pvfw import superblock
from pvfw.errors import DumpError

from ..arm import settings, targets
from ..arm.settings import Wanted
from ..dump import disk as disks

DEVICES = Path("/dev")
SETTINGS = Path("etc/pvdump.yaml")  # below the root


class Look(NamedTuple):
    """A target as it looks.

    Attributes:
        name: as in the settings.
        error: why it would be refused, or "".
        room: bytes for a dump.
        dump: whether it holds a dump.
    """

    name: str
    error: str
    room: int
    dump: bool


def look(wanted: Wanted, level: int) -> Look:
    """Look at one target.

    Args:
        wanted: as the settings have it.
        level: of the dump.
    """
    name = f"file:{wanted.place}" if wanted.place is not None else wanted.name
    room, dump = 0, False
    try:
        block = _superblock(wanted)
        room, dump = block.room(), block.state != superblock.READY
        targets.made(wanted, level, DEVICES)
    except (DumpError, OSError) as error:
        return Look(name, str(error), room, dump)
    return Look(name, "", room, dump)


def _superblock(wanted: Wanted) -> superblock.Superblock:
    path = DEVICES / wanted.name if wanted.place is None else wanted.place
    with disks.reading(path) as disk:
        return disk.superblock()


def read(root: Path) -> tuple[str, dict[str, Any], list[Look]]:
    """Look at the targets that the settings name.

    Args:
        root: of the settings' file.

    Returns:
        why the settings cannot be read, or ""; the settings, or else their defaults; the targets.
    """
    why = ""
    try:
        values = settings.load(root / SETTINGS)
    except DumpError as error:
        why = str(error)
        values = {name: setting.default for name, setting in settings.SETTINGS.items()}
    return why, values, [look(each, values["level"]) for each in values["targets"]]
