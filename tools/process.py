"""Run a program that must succeed: its output, or an error with its last lines.

Used by tools/ and lab/ for compilers, apt and tar. What is shown while a program runs is not for
here: see apt.py and venv.py.
"""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from tools import Trouble

TAIL = 20


def tail(text: str, lines: int = TAIL) -> str:
    """Return the last lines of a text."""
    return "\n".join(text.strip().splitlines()[-lines:])


def output(
    command: Sequence[str],
    error: type[Trouble] = Trouble,
    *,
    cwd: Path | None = None,
    given: str | None = None,
    stdin: IO[bytes] | None = None,
    environment: Mapping[str, str] | None = None,
) -> str:
    """Run a program to its end.

    Args:
        command: The program and its arguments.
        error: The exception to raise where it fails.
        cwd: The folder to run it in; None is the present one.
        given: Text for its standard input.
        stdin: A stream for its standard input, in place of `given`.
        environment: All of its environment; None is our own.

    Returns: what it printed on standard output.

    Raises: `error`, with the command, the exit code and the last lines that it printed.
    """
    done = subprocess.run(
        command,
        cwd=cwd,
        env=environment,
        **({"input": given} if stdin is None else {"stdin": stdin}),
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=False,
    )
    if done.returncode:
        said = tail(done.stdout + done.stderr)
        raise error(f"{shlex.join(command)}: exit {done.returncode}\n{said}")
    return done.stdout
