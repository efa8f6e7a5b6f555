"""The folder that xl needs for a guest that is a script: image, script, configuration.

Used by `pvdump script`. The rule: the folder is new; where it cannot be made whole, none is left.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from ..dump.newfile import refuse_dev
from . import config
from .text import ScriptError


def make(
    folder: Path,
    image: bytes,
    text: bytes,
    door: str,
    script: Path,
    name: str,
    memory: int,
    disks: Sequence[Path],
) -> Path:
    """Make the folder.

    Args:
        folder: its name; what is above it is there.
        image: content of pvboot.elf or pvboot.fw, as the door needs.
        text: the script with its modules.
        door, script, name, memory, disks: as for config.encode().

    Returns:
        the configuration in it, a whole path.

    Raises:
        ScriptError: there is something of that name, or a name that xl cannot take.
        DiskError: it would be below /dev.
        OSError: it cannot be written.
    """
    refuse_dev(folder)
    whole = Path(os.path.realpath(folder.parent), folder.name)
    disks = [Path(os.path.realpath(disk)) for disk in disks]
    encoded = config.encode(door, whole, script, name, memory, disks)
    if door == config.FIRMWARE:
        text = config.OPTIONS.encode() + text
    contents = (*zip(config.FILES[door], (image, text)), (config.CONFIG, encoded.encode()))
    try:
        whole.mkdir()
    except FileExistsError:
        raise ScriptError(f"{folder} exists already: name another folder, or remove it") from None
    try:
        for file, content in contents:
            (whole / file).write_bytes(content)
    except BaseException:
        shutil.rmtree(whole, ignore_errors=True)
        raise
    return whole / config.CONFIG
