"""The units: those that no package has installed, and what the settings make them wait for.

Used by plan.py, and by checks.py for what is missing. The rule: a unit's own text names nothing
that the settings can change. Folders and devices that they name are in a file beside it, which
setup writes and `pvdump remove` takes away. Source: systemd.unit(5), systemd-escape(1).
"""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from pvfw.errors import DumpError

from ..place import filesystem
from . import targetlook, textfile
from .steps import File, Folder, folders

RUNNING = Path("run/systemd/system")  # is there where systemd runs
UNIT_PLACES = ("usr/lib/systemd/system", "lib/systemd/system")
LOCAL_UNITS = Path("etc/systemd/system")
RULE_PLACES = ("usr/lib/udev/rules.d", "lib/udev/rules.d")
LOCAL_RULES = Path("etc/udev/rules.d")
PACKAGED = Path(__file__).resolve().parent / "units"
PROGRAM = "/usr/bin/pvdump"  # in the packaged units
# Beside a unit of that name systemd reads all files of the folder.
WAITS = LOCAL_UNITS / "pvdump-collect.service.d/pvdump.conf"
DEVICES = Path("/dev")
HEAD = """\
# Written by `pvdump setup`: where the settings have dumps, hooks and targets.
[Unit]
"""
FOLDER = "RequiresMountsFor={}\n"
DEVICE = "Wants={0}\nAfter={0}\n"
# File systems that systemd mounts when swap is in use: on the network, and in memory.
LATE = re.compile("nfs4?|cifs|smb3|afs|ceph|gfs2?|glusterfs|lustre|ocfs2|pvfs2|fuse[.].*|tmpfs")


class UnitError(DumpError):
    """A unit cannot name what the settings name; the message says which."""


def files(root: Path, values: Mapping[str, Any], swap: bool) -> list[File | Folder]:
    """Return the steps that make the files which a guest's units need.

    Args:
        root: of the guest's files.
        values: of the settings.
        swap: whether a target is swap.

    Raises:
        UnitError: a name cannot be in a unit's text, or its folder cannot be waited for.
    """
    made: list[File | Folder] = []
    for source in sorted(PACKAGED.iterdir()):
        suffix = source.suffix
        places, local = (
            (RULE_PLACES, LOCAL_RULES) if suffix == ".rules" else (UNIT_PLACES, LOCAL_UNITS)
        )
        if suffix == ".conf" or any((root / place / source.name).exists() for place in places):
            continue
        made += _file(root / local / source.name, _own(source.read_text(encoding="utf-8")))
    made += _file(root / WAITS, waits(values))
    if swap:
        _refuse_late(values["directory"])
        text = (PACKAGED / "pvdump-swap.conf").read_text(encoding="utf-8")
        made += _file(root / targetlook.SWAP_UNIT, text)
    return made


def waits(values: Mapping[str, Any]) -> str:
    """Return the text of the file by which the collecting waits for what the settings name.

    Args:
        values: of the settings.

    Raises:
        UnitError: a name cannot be in a unit's text.
    """
    mounts = {values["directory"], values["hooks"]}
    units = set()
    for target in values["targets"]:
        path = target.place or DEVICES / target.name
        if DEVICES in path.parents:
            units.add(device_unit(path))
        else:
            mounts.add(path.parent)
    # A link may lead to another file system.
    mounts |= {path.resolve() for path in mounts}
    lines = [FOLDER.format(each) for each in sorted(quoted(path) for path in mounts)]
    return "".join([HEAD, *lines, *(DEVICE.format(unit) for unit in sorted(units))])


def is_waiting(root: Path, values: Mapping[str, Any]) -> bool:
    """Tell whether the collecting waits for what the settings name, or nothing has it wait.

    Args:
        root: of the guest's files.
        values: of the settings.
    """
    with suppress(DumpError):
        return not (root / RUNNING).exists() or textfile.read(root / WAITS) == waits(values)
    return False


def _refuse_late(folder: Path) -> None:
    """Refuse a folder that is there only when swap is in use. Raises UnitError."""
    kind, length = "", 0
    for line in filesystem.MOUNTS.read_text(errors="replace").splitlines():
        fields, _, rest = line.partition(" - ")
        point = Path(filesystem.unescaped(fields.split()[4]))
        if point in (folder.resolve(), *folder.resolve().parents) and len(str(point)) >= length:
            kind, length = rest.split()[0], len(str(point))
    if LATE.fullmatch(kind):
        raise UnitError(
            f"{folder} is on {kind}, which is mounted after swap is in use; a dump in swap must be "
            "collected before: another directory: in the settings, or another target"
        )


def quoted(path: Path) -> str:
    """Return a name as a list of a unit has it. Raises UnitError."""
    text = os.path.abspath(path)  # noqa: PTH100 - with links
    if not text.isprintable():
        raise UnitError(f"{path} has characters that no unit of systemd can name: rename it")
    text = text.replace("%", "%%")
    if re.fullmatch(r"[\w/.:%+@,=-]+", text):
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def device_unit(path: Path) -> str:
    """Return the name of a device's unit, as `systemd-escape --path --suffix=device` does."""
    name = os.fsencode(os.path.abspath(path).strip("/"))  # noqa: PTH100 - with links
    escaped = "".join(_escaped(each) for each in name.decode("latin-1"))
    return f"{escaped}.device"


def _escaped(each: str) -> str:
    if each == "/":
        return "-"
    return each if re.fullmatch(r"[\w:.]", each, re.ASCII) else f"\\x{ord(each):02x}"


def _file(path: Path, text: str) -> list[File | Folder]:
    return [*folders(path), File(path, text)]


def _own(text: str) -> str:
    """Return the text of a packaged unit with the command that starts this pvdump."""
    started = Path(sys.argv[0]).absolute()
    words = [str(started)]
    if started.name != "pvdump" or not started.exists():
        words = [sys.executable, "-m", "pvdump"]
    folder = quoted(Path(words[0]).parent)
    return text.replace(PROGRAM, shlex.join(words)).replace(" /usr ", f" /usr {folder} ")
