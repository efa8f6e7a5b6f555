"""What a person asks of pvdump: /etc/pvdump.yaml, or the options of `pvdump arm`.

Used by arm, and by all commands that the guest runs by itself. The rules: file and options are read
by the same functions; what an option says counts before what the file says; an unknown name or a
value that cannot be is refused in one line, which has the number of the file's line.
"""

from __future__ import annotations

import argparse
import os
import uuid
from argparse import ArgumentTypeError
from pathlib import Path
from typing import Any, Callable, NamedTuple, Optional

from pvfw import config
from xenpv.block import vdev
from xenpv.errors import BadDiskName
from xenpv.text import decimal

from ..arguments import file_name, size
from . import yamlnodes
from .recipient import recipient
from .yamlnodes import SettingsError

SYSTEM = Path("/etc/pvdump.yaml")
LOG_ONLY = "log"
COMPRESSION_MIN, COMPRESSION_MAX = -7, 22  # zstd's, as far as anybody uses them
KEEP_MAX = 1_000_000  # dumps


class Wanted(NamedTuple):
    """A target that a dump may go to.

    Attributes:
        name: of a disk, as the image has it, such as xvdb; "" for a place.
        uuid: of its superblock, None to read it.
        place: of a file, partition, logical volume or swap, whose extents are the target.
    """

    name: str
    uuid: Optional[bytes]
    place: Optional[Path] = None

    def __str__(self) -> str:
        if self.place is not None:
            return f"file:{self.place}"
        return self.name if self.uuid is None else f"{self.name}={uuid.UUID(bytes=self.uuid)}"


def target(text: str) -> Wanted:
    """Read NAME, NAME=UUID or file:PATH. Raises ArgumentTypeError."""
    kind, colon, path = text.partition(":")
    if colon and kind == "file":
        return Wanted("", None, file_name(path))
    name, equals, number = text.partition("=")
    try:
        vdev.number(name)
    except BadDiskName as error:
        raise ArgumentTypeError(str(error)) from error
    if not equals:
        return Wanted(name, None)
    try:
        return Wanted(name, uuid.UUID(number).bytes)
    except ValueError:
        raise ArgumentTypeError(f"{number[:40]!r} is no UUID, as `pvdump info` shows it") from None


def level(text: str) -> int:
    """Read a level of makedumpfile's, or LOG_ONLY. Raises ArgumentTypeError."""
    number = config.LOG_ONLY if text == LOG_ONLY else decimal(text, 0, config.LEVEL_MAX)
    if number is None:
        raise ArgumentTypeError(
            f"{text[:40]!r} is no level: 0 to {config.LEVEL_MAX}, or {LOG_ONLY}, expected"
        )
    return number


def compression(text: str) -> int:
    """Read a level of zstd's. Raises ArgumentTypeError."""
    number = decimal(text[text[:1] == "-" :], 0, COMPRESSION_MAX)
    if number is not None and text[:1] == "-":
        number = -number
    if number is None or number < COMPRESSION_MIN:
        raise ArgumentTypeError(
            f"{text[:40]!r} is no level: {COMPRESSION_MIN} to {COMPRESSION_MAX} expected"
        )
    return number


def one_of(*words: str) -> Callable[[str], str]:
    """Make a function that reads one of some words, and raises ArgumentTypeError."""

    def read(text: str) -> str:
        if text not in words:
            raise ArgumentTypeError(f"{text[:40]!r}: {' or '.join(words)} expected")
        return text

    return read


def dumps(text: str) -> int:
    """Read a number of dumps, 1 at least. Raises ArgumentTypeError."""
    number = decimal(text, 1, KEEP_MAX)
    if number is None:
        raise ArgumentTypeError(f"{text[:40]!r} is no number of dumps, 1 to {KEEP_MAX}")
    return number


def folder(text: str) -> Path:
    """Read the name of a folder or file, from the root on. Raises ArgumentTypeError."""
    path = file_name(text)
    if not path.is_absolute():
        raise ArgumentTypeError(f"{text[:40]!r}: a name that begins with / expected")
    return path


class Setting(NamedTuple):
    """A setting.

    Attributes:
        read: makes a value of a text, or raises ArgumentTypeError.
        default: the value where nothing else is said; a list where several may be said.
        metavar, help: of its option; "" for a setting that only the file has.
    """

    read: Callable[[str], Any]
    default: Any
    metavar: str = ""
    help: str = ""


# By the name in the file. The option has the singular, and "-" for "_": --target.
SETTINGS = {
    "targets": Setting(
        target,
        [],
        "NAME[=UUID]|file:PATH",
        "a disk for the dump, such as xvdb, in order of preference; its UUID is read from "
        "/dev/NAME unless given. file: a file, partition, logical volume or swap of this guest, "
        "which the image writes by its extents",
    ),
    "level": Setting(
        level,
        config.LEVEL_MAX,
        "LEVEL",
        "what to leave out, as makedumpfile's -d, 0 to 31; log: keep the log, notes and stacks "
        "alone (default: 31)",
    ),
    "compress": Setting(
        one_of(*config.ALGORITHMS), "zstd", "|".join(config.ALGORITHMS), "(default: zstd)"
    ),
    "compress_level": Setting(compression, 1, "LEVEL", "zstd's (default: 1)"),
    "recipients": Setting(
        recipient, [], "age1...", "encrypt the dump to this key; may be said several times"
    ),
    "log": Setting(
        one_of("clear"),
        None,
        "clear",
        "let the kernel's log go to console and xenstore although there are recipients",
    ),
    "then": Setting(
        one_of(*config.ENDS),
        None,
        "|".join(config.ENDS),
        "what the image does afterwards (default: reboot)",
    ),
    # Of dumps that were collected: where they are, and how many are kept.
    "directory": Setting(folder, Path("/var/crash")),
    "keep": Setting(dumps, 5),
    "keep_free": Setting(size, None),  # bytes; None: as retention.py has it
    "hooks": Setting(folder, Path("/etc/pvdump/hooks")),
    # The key that kernels are signed with as they are installed (guest/signboot.py).
    "boot_key": Setting(folder, None),
}
OPTIONS = {name: setting for name, setting in SETTINGS.items() if setting.metavar}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options for the settings that have one, and the one for the file."""
    for name, setting in OPTIONS.items():
        many = isinstance(setting.default, list)
        option = (name[:-1] if many else name).replace("_", "-")
        parser.add_argument(
            f"--{option}",
            dest=name,
            action="append" if many else "store",
            type=setting.read,
            metavar=setting.metavar,
            help=setting.help,
        )
    add_file(parser)


def add_file(parser: argparse.ArgumentParser) -> None:
    """Add the option for the file."""
    parser.add_argument(
        "--config",
        type=file_name,
        metavar="FILE",
        help=f"a YAML file with settings (default: {SYSTEM}, if it is there)",
    )


def settled(options: argparse.Namespace) -> dict[str, Any]:
    """Return the value of each setting, from the options, the file, or the defaults.

    Args:
        options: made by a parser with add_options(), or with add_file() alone.

    Raises:
        SettingsError: the file cannot be used.
    """
    values = load(SYSTEM) if options.config is None else load(options.config, needed=True)
    said = {name: getattr(options, name, None) for name in OPTIONS}
    values.update({name: value for name, value in said.items() if value is not None})
    return values


def load(path: Path, needed: bool = False) -> dict[str, Any]:
    """Read a file of settings.

    Args:
        path: a YAML file.
        needed: whether it must be there; else it may not, and nothing is said.

    Returns:
        the value of each of SETTINGS: what its read() gives, or its default.

    Raises:
        SettingsError: the file cannot be used; the message has its name and the line.
    """
    values = {
        name: list(setting.default) if isinstance(setting.default, list) else setting.default
        for name, setting in SETTINGS.items()
    }
    if needed or os.path.lexists(path):
        values.update(_read(path))
    return values


def _read(path: Path) -> dict[str, Any]:
    """Return what a file says."""
    found: dict[str, Any] = {}
    for key, value in yamlnodes.pairs(path):
        name, line = key.value, key.start_mark.line + 1
        if name not in SETTINGS:
            known = ", ".join(SETTINGS)
            raise SettingsError(
                f"{path}: line {line}: no setting {name[:40]!r}; there are: {known}"
            )
        if name in found:
            raise SettingsError(f"{path}: line {line}: {name} is said a second time")
        setting = SETTINGS[name]
        if not isinstance(setting.default, list):
            found[name] = _value(path, name, setting, value)
        elif value.id != "sequence":
            raise SettingsError(f"{path}: line {line}: {name}: a list expected, as in [xvdb, xvdc]")
        else:
            found[name] = [_value(path, name, setting, each) for each in value.value]
    return found


def _value(path: Path, name: str, setting: Setting, node: Any) -> Any:
    """Read the value of a setting, or one of a list."""
    try:
        if node.id != "scalar":
            raise ArgumentTypeError("a text or a number expected")
        return setting.read(node.value)
    except ArgumentTypeError as error:
        line = node.start_mark.line + 1
        raise SettingsError(f"{path}: line {line}: {name}: {error}") from error
