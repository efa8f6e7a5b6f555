"""The standard streams of the command line.

Used by cli and by the commands. The rules: what went wrong is one line whatever names it has; a
line that cannot be written changes nothing of what was done.
"""

from __future__ import annotations

import os
import shlex
import sys
from contextlib import suppress
from pathlib import Path


def one_line(text: str) -> str:
    """Write control characters, and bytes that are no UTF-8, as escapes."""
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode() for each in text
    )


def pasted(word: Path | str) -> str:
    """Return a word of a command as a person pastes it into a shell.

    Args:
        word: a name that looks like an option gets a folder before it; control characters, and
            bytes that are no UTF-8, are written as bash, ksh, zsh and POSIX.1-2024 read them.
    """
    text = str(word)
    if isinstance(word, Path) and text.startswith("-"):
        text = f"./{text}"
    if text.isprintable():
        return shlex.quote(text)
    parts = (
        chr(each) if 0x20 <= each < 0x7F and each not in b"'\\" else f"\\{each:03o}"
        for each in os.fsencode(text)
    )
    return f"$'{''.join(parts)}'"


def as_root(command: str, error: BaseException) -> str:
    """Return what to do where a user may not what root may; "" where that is not the reason."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, PermissionError):
        cause = cause.__cause__ or cause.__context__
    return (
        "" if cause is None or os.geteuid() == 0 else f"; as root: `sudo pvdump {pasted(command)}`"
    )


def complain(command: str, line: str) -> None:
    """Say what went wrong, if there is anywhere to say it."""
    with suppress(OSError):
        print(f"{f'pvdump {command}'.strip()}: {one_line(line)}", file=sys.stderr)


def tell(command: str, line: str) -> None:
    """Say on standard output what was done. Where that fails, it was done all the same."""
    try:
        print(one_line(line), flush=True)
    except OSError as error:
        leave_output()
        if not isinstance(error, BrokenPipeError):
            complain(command, f"standard output: {error.strerror}")


def leave_output() -> None:
    """Have what standard output cannot take go nowhere: the program's exit would fail on it."""
    try:
        sys.stdout.flush()
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def ensure_streams() -> None:
    """Have all three standard streams, and let them take any name.

    Where one is closed, the disk that is opened next would get its number, and what is meant for
    standard error would be written to the disk.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # The lowest free number is given. Writing to it fails as to what is closed.
            os.open(os.devnull, os.O_RDONLY)
    if sys.stdout is None:
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115 - for the whole program
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115, PTH123
    # Names need not be UTF-8.
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")
