"""Programs of the system that the guest's commands run: systemctl, kexec, update-grub and others.

Used by setup, remove, arm and collect. The rule: nothing goes through a shell, and a program that
fails is an error with its last line.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence

from pvfw.errors import DumpError

from ..streams import pasted

# Where programs for root are, also where the PATH of a user or of cron does not have it.
PLACES = ("/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/bin", "/bin")
LINE_MAX = 300  # characters of a program's line in a message


class ProgramError(DumpError):
    """A program is missing or has failed; the message has its last line."""


def find(name: str) -> str | None:
    """Return the path of a program, None where there is none."""
    path = os.pathsep.join([os.environ.get("PATH", ""), *PLACES])
    return shutil.which(name, path=path)


def run(words: Sequence[str]) -> str:
    """Run a program to its end, without input.

    Args:
        words: its name and its arguments.

    Returns:
        what it wrote to standard output.

    Raises:
        ProgramError: there is no such program, or it did not end with 0.
    """
    import subprocess  # takes a while, and few commands need it

    shown = " ".join(map(pasted, words))
    program = find(words[0])
    if program is None:
        raise ProgramError(f"{shown}: there is no program {words[0]}")
    try:
        done = subprocess.run(
            [program, *words[1:]],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            env={**os.environ, "LC_ALL": "C"},
            check=False,
        )
    except OSError as error:
        raise ProgramError(f"{shown}: {error.strerror}") from error
    if done.returncode:
        lines = (done.stderr.strip() or done.stdout.strip()).splitlines()
        why = lines[-1][:LINE_MAX] if lines else f"it ended with {done.returncode}"
        raise ProgramError(f"{shown}: {why}")
    return done.stdout
