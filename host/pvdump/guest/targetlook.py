"""The targets that are configured, looked at as `pvdump arm` looks at them; nothing is written.

Used by facts.py.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, Optional

from pvfw import superblock
from pvfw.errors import DumpError

from ..arm import settings, targets
from ..arm.settings import Wanted
from ..dump import disk as disks

DEVICES = Path("/dev")
SETTINGS = Path("etc/pvdump.yaml")  # below the root
SWAP_UNIT = Path("etc/systemd/system/swap.d/pvdump.conf")


class Look(NamedTuple):
    """A target as it looks.

    Attributes:
        name: as in the settings.
        error: why it would be refused, or "".
        room: bytes for a dump; None where that is not known.
        dump: whether it holds a dump.
        swap: whether it is swap.
    """

    name: str
    error: str
    room: Optional[int]
    dump: bool
    swap: bool = False


def look(wanted: Wanted, level: int) -> Look:
    """Look at one target.

    Args:
        wanted: as the settings have it.
        level: of the dump.
    """
    try:
        found = targets.find(wanted, level)
        return Look(str(wanted), "", found.room, False, found.target.swap)
    except (DumpError, OSError) as error:
        return Look(str(wanted), str(error), None, _holds_dump(wanted))


def _holds_dump(wanted: Wanted) -> bool:
    with suppress(DumpError, OSError), disks.reading(targets.where(wanted)) as disk:
        return bool(disk.superblock().state != superblock.READY)
    return False


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
