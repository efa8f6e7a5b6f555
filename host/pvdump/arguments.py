"""Kinds of arguments of the command line, each checked before it is used.

Given to argparse as `type=` by every command. The rule: what is refused here is wrong usage, and
the line says what was expected.
"""

from __future__ import annotations

import os
from argparse import ArgumentTypeError
from pathlib import Path

from xenpv import abi
from xenpv.block import vdev
from xenpv.errors import BadDiskName
from xenpv.text import decimal

UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
SIZE_MAX = (1 << 63) - 1  # off_t


def size(text: str) -> int:
    """Read a number of bytes, with an optional K, M, G or T.

    Raises:
        ArgumentTypeError: it is none, or no file can have it.
    """
    text = text.strip().upper()
    unit = text[-1:] if text[-1:] in UNITS else ""
    number = decimal(text[: len(text) - len(unit)], 0, SIZE_MAX)
    if number is None:
        raise ArgumentTypeError(f"{text[:40]!r} is not a size such as 512M or 4G")
    if number * UNITS[unit] > SIZE_MAX:
        raise ArgumentTypeError(f"{text} is larger than any file can be")
    return number * UNITS[unit]


def file_name(text: str) -> Path:
    """Read the name of a file, folder or device.

    Raises:
        ArgumentTypeError: it is empty, which Path() would take for the current folder; or, as only
            YAML can say it, it has characters that no name has.
    """
    if not text:
        raise ArgumentTypeError("a name expected, an empty one found")
    try:
        is_name = b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:
        is_name = False
    if not is_name:
        raise ArgumentTypeError(f"{text[:80]!r} is no file's name")
    return Path(text)


def output_name(text: str) -> Path | None:
    """Read the name of an output file; "-" gives None, for standard output.

    Raises:
        ArgumentTypeError: it is none, or a folder's, whose last slash Path() would leave out.
    """
    if text.endswith("/"):
        raise ArgumentTypeError(f"{text[:80]!r} names a folder, a file expected")
    return None if text == "-" else file_name(text)


def domid(text: str) -> int:
    """Read the number of a domain.

    Raises:
        ArgumentTypeError: no domain can have it.
    """
    number = decimal(text, 0, abi.DOMID_SELF - 1)
    if number is None:
        raise ArgumentTypeError(f"{text[:40]!r} is not a domain's number")
    return number


def disk_name(text: str) -> str:
    """Read the name that a guest has for a disk, such as xvdb.

    Raises:
        ArgumentTypeError: no disk has it.
    """
    try:
        vdev.number(text)
    except BadDiskName as error:
        raise ArgumentTypeError(str(error)) from error
    return text


def sink_name(text: str) -> str:
    """Read a file, device or URI, as it is.

    Raises:
        ArgumentTypeError: it is empty, or no name.
    """
    file_name(text)
    return text
