"""`pvdump script`: make what xl needs to start a guest that is a Python script.

Called by the command line.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping
from pathlib import Path

from ..arguments import file_name
from ..streams import pasted, tell
from . import config, folder, image, reach, text
from .text import ScriptError

MEMORY, MEMORY_MIN, MEMORY_MAX = 64, 16, 1 << 20  # MiB
DISKS_MAX = 16
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,39}")

DESCRIPTION = """\
Make a folder with what xl needs to start a guest that is a Python script: pvboot, the script with
its modules, and xl.cfg. The script is looked at first: pvboot's Python is MicroPython, which lacks
some of what Python has, such as floats."""
EPILOG = """\
The guest powers off when the script ends, and crashes where it fails. What a script can do is told
in docs/scripting.md. Syntax, names and modules are looked at; methods are not."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.description, parser.epilog = DESCRIPTION, EPILOG
    parser.add_argument("script", type=file_name, metavar="SCRIPT")
    parser.add_argument(
        "-o", "--out", type=file_name, required=True, metavar="FOLDER", help="the folder to make"
    )
    parser.add_argument(
        "--with",
        dest="modules",
        type=file_name,
        action="append",
        default=[],
        metavar="FILE|FOLDER",
        help="a module or package that the script imports; may be given several times",
    )
    parser.add_argument(
        "--firmware",
        action="store_true",
        help="an HVM guest with pvboot in hvmloader's place (default: a PVH guest)",
    )
    parser.add_argument(
        "--disk",
        dest="disks",
        type=file_name,
        action="append",
        default=[],
        metavar="FILE|DEVICE",
        help="a disk of the guest, which may write to it: xvda, then xvdb ...",
    )
    parser.add_argument(
        "--name", type=_name, help="the guest's name (default: the script's, without .py)"
    )
    parser.add_argument(
        "--memory", type=_memory, default=MEMORY, metavar="MIB", help=f"(default: {MEMORY})"
    )
    parser.add_argument(
        "--image", type=file_name, help="pvboot.elf, or pvboot.fw (default: the installed one)"
    )


def run(options: argparse.Namespace) -> int:
    """Run the command. Returns the exit code."""
    door = config.FIRMWARE if options.firmware else config.PVH
    script = text.read(options.script)
    modules = text.modules(options.modules)
    _refuse(options.script, script, modules)
    whole = text.compose(script, modules, str(options.script))
    _check_disks(options.disks)
    content = image.read(options.image or image.find(config.FILES[door][0]))
    name = options.name or _name_of(options.script)
    made = folder.make(
        *(options.out, content, whole, door, options.script, name, options.memory, options.disks)
    )
    kind = "HVM guest with pvboot in hvmloader's place" if options.firmware else "PVH guest"
    beside = f" and {len(modules)} modules" if modules else ""
    tell("script", f"{options.out}: the {kind} {name}, {options.memory} MiB, the script{beside}")
    tell("script", f"start it in dom0: xl create -c {pasted(made)}")
    return 0


def _refuse(path: Path, script: bytes, modules: Mapping[str, bytes]) -> None:
    """Refuse a script or a module that would fail. Raises ScriptError."""
    found = reach.problems(str(path), script, modules)
    if not found:
        return
    (name, (line, what)), more = found[0], len(found) - 1
    others = f" (and {more} more)" if more else ""
    raise ScriptError(f"{name}:{line}: {what}{others}")


def _check_disks(disks: list[Path]) -> None:
    if len(disks) > DISKS_MAX:
        raise ScriptError(f"{len(disks)} disks; {DISKS_MAX} at most")
    for disk in disks:
        disk.stat()  # raises OSError
        if not disk.is_file() and not disk.is_block_device():
            raise ScriptError(f"{disk} is no file and no disk")


def _name_of(path: Path) -> str:
    """Return the name of a script as a guest can have it."""
    name = re.sub(r"[^A-Za-z0-9_.-]", "-", path.stem).lstrip("-_.")[:40]
    return name if NAME.fullmatch(name) else "script"


def _name(word: str) -> str:
    if not NAME.fullmatch(word):
        raise argparse.ArgumentTypeError(
            f"{word[:80]!r} is no name of a guest: letters, digits, - _ and . expected, at most 40"
        )
    return word


def _memory(word: str) -> int:
    if not re.fullmatch("[0-9]{1,7}", word) or not MEMORY_MIN <= int(word) <= MEMORY_MAX:
        raise argparse.ArgumentTypeError(
            f"{word[:40]!r}: MiB expected, {MEMORY_MIN} to {MEMORY_MAX}"
        )
    return int(word)
