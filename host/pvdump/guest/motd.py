"""The line about the last dump that whoever logs in sees.

Used by gather.py. The rule: everybody reads it, so it has nothing of the kernel's log.
Source: pam_motd(8): files in /run/motd.d are shown at login, if the user can read them.
"""

from __future__ import annotations

import os
from pathlib import Path

from ..dump.disk import DiskError
from ..streams import one_line
from .dumps import Dump

MOTD = Path("run/motd.d/pvdump")  # below the root; until the next boot


def write(root: Path, dump: Dump) -> None:
    """Write the line, in one step.

    Raises:
        DiskError: it cannot be written.
    """
    facts = dump.facts
    part = "" if facts.complete else "part of "
    shows = "" if facts.encrypted else "; `pvdump report` shows why"
    line = one_line(
        f"pvdump: the kernel crashed on {facts.when():%Y-%m-%d at %H:%M:%S} UTC, "
        f"{part}the dump is in {dump.path}{shows}"
    )
    path = root / MOTD
    made = path.with_name(f".{path.name}.new")
    try:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        made.unlink(missing_ok=True)
        fd = os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        with open(fd, "wb") as stream:  # noqa: PTH123 - a descriptor
            os.fchmod(fd, 0o644)
            stream.write(line.encode() + b"\n")
        made.replace(path)
    except OSError as error:
        raise DiskError(f"{path}: {error.strerror}") from error
