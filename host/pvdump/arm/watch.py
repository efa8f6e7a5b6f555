"""The targets that are files, watched by systemd: after a change the daily check runs at once.

Used by arming. A file can be changed only when its attribute "immutable" was taken off; until the
check the image would write to the blocks that the file had. The rule: it is a help, and without it
a target is armed all the same. Source: systemd-run(1), systemd.path(5).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from ..guest import programs
from ..streams import complain

RUNNING = Path("run/systemd/system")  # is there where systemd runs
CHECK = "pvdump-check"
UNITS = ("etc/systemd/system", "usr/lib/systemd/system", "lib/systemd/system")


def begin(paths: Sequence[Path], root: Path) -> None:
    """Watch these targets, and no other ones; a failure is told.

    Args:
        paths: of the targets.
        root: of the system.
    """
    if not end(root):
        return
    files = [os.path.abspath(path) for path in paths if path.is_file()]  # noqa: PTH100 - with links
    if files:
        words = [f"--path-property=PathChanged={file.replace('%', '%%')}" for file in files]
        try:
            programs.run(["systemd-run", "--quiet", f"--unit={CHECK}", *words])
        except programs.ProgramError as error:
            complain("arm", f"{error}; a change of the target is found by the daily check")


def end(root: Path) -> bool:
    """Watch nothing. Returns whether this system can."""
    units = any((root / place / f"{CHECK}.service").is_file() for place in UNITS)
    if not units or not (root / RUNNING).is_dir():
        return False
    with suppress(programs.ProgramError):  # there is none
        programs.run(["systemctl", "stop", f"{CHECK}.path"])
    return True
