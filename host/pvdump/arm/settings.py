"""What a person asks of the image: the options of `pvdump arm`, or a YAML file with the same names.

Used by command.py. The rules: both are read by the same functions; what an option says counts
before what the file says; an unknown name or a value that cannot be is refused in one line.
"""

from __future__ import annotations

import argparse
import uuid
from argparse import ArgumentTypeError
from pathlib import Path
from typing import Any, Callable, NamedTuple, Optional

from pvfw import config
from pvfw.errors import DumpError
from xenpv.block import vdev
from xenpv.errors import BadDiskName
from xenpv.text import decimal

from ..arguments import file_name
from .recipient import recipient

FILE_MAX = 65536  # bytes
LOG_ONLY = "log"
COMPRESSION_MIN, COMPRESSION_MAX = -7, 22  # zstd's, as far as anybody uses them


class SettingsError(DumpError):
    """The file of settings cannot be used; the message names it and says why."""


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


class Setting(NamedTuple):
    """A setting.

    Attributes:
        read: makes a value of a text, or raises ArgumentTypeError.
        default: the value where nothing else is said; a list where several may be said.
        metavar, help: for --help.
    """

    read: Callable[[str], Any]
    default: Any
    metavar: str
    help: str


# By the name in the file. The option has the singular: --target, --recipient.
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
    "compress-level": Setting(compression, 1, "LEVEL", "zstd's (default: 1)"),
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
}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options for all settings, and the one for the file."""
    for name, setting in SETTINGS.items():
        many = isinstance(setting.default, list)
        parser.add_argument(
            f"--{name[:-1] if many else name}",
            dest=name,
            action="append" if many else "store",
            type=setting.read,
            metavar=setting.metavar,
            help=setting.help,
        )
    parser.add_argument(
        "--config", type=file_name, metavar="FILE", help="a YAML file with settings: docs/arm.md"
    )


def settled(options: argparse.Namespace) -> dict[str, Any]:
    """Return the value of each setting, from the options, the file, or the defaults.

    Raises:
        SettingsError: the file cannot be used.
    """
    values = {name: setting.default for name, setting in SETTINGS.items()}
    if options.config is not None:
        values.update(_read(options.config))
    said = {name: getattr(options, name) for name in SETTINGS}
    values.update({name: value for name, value in said.items() if value is not None})
    return values


def _read(path: Path) -> dict[str, Any]:
    """Read a file of settings."""
    found = {}
    for name, value in _mapping(path).items():
        if name not in SETTINGS:
            known = ", ".join(SETTINGS)
            raise SettingsError(f"{path}: no setting {str(name)[:40]!r}; there are: {known}")
        setting = SETTINGS[name]
        try:
            if not isinstance(setting.default, list):
                found[name] = setting.read(_text(value))
            elif not isinstance(value, list):
                raise ArgumentTypeError("a list expected")
            else:
                found[name] = [setting.read(_text(each)) for each in value]
        except ArgumentTypeError as error:
            raise SettingsError(f"{path}: {name}: {error}") from error
    return found


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ArgumentTypeError("a text or a number expected")
    return value


def _mapping(path: Path) -> dict[Any, Any]:
    try:
        import yaml
    except ImportError as error:
        raise SettingsError(
            "--config needs PyYAML: `apt install python3-yaml`, or use the options instead"
        ) from error
    try:
        with path.open("rb") as stream:
            raw = stream.read(FILE_MAX + 1)
        if len(raw) > FILE_MAX:
            raise SettingsError(f"{path} has more than {FILE_MAX} bytes; no settings have as many")
        # Of this loader all scalars are texts: "no" is no boolean, 010 not 8.
        found = yaml.load(raw, Loader=yaml.BaseLoader)
    except OSError as error:
        raise SettingsError(f"{path}: {error.strerror}") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        line = f" line {mark.line + 1}:" if mark else ""
        raise SettingsError(f"{path}:{line} {error.problem}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise SettingsError(f"{path}: no YAML: {type(error).__name__}") from error
    if not isinstance(found, dict):
        raise SettingsError(f"{path}: lines such as `level: 31` expected")
    return found
