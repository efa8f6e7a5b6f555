"""Programs of this guest's owner that run before a dump is collected and after: docs/hooks.md.

Used by gather.py. The rules: no shell; what fails or takes too long is told and costs no more than
itself; what others than its owner can write is not run.
"""

from __future__ import annotations

import os
import signal
import stat
import subprocess
from contextlib import suppress
from pathlib import Path

from ..streams import pasted

BEFORE, AFTER = "before.d", "after.d"
COMPLETE, PARTIAL = "complete", "partial"  # kinds of dumps
SECONDS = 3600  # that one may take
SKIPPED = (
    "~",
    ".dpkg-old",
    ".dpkg-new",
    ".dpkg-dist",
    ".rpmsave",
    ".rpmnew",
    ".rpmorig",
    ".disabled",
)


def run(folder: Path, dump: Path, is_complete: bool, seconds: float = SECONDS) -> list[str]:
    """Run the hooks of a folder, in the order of their names.

    Args:
        folder: of hooks; it need not be there.
        dump: folder of the dump, the first argument of each.
        is_complete: gives the second one.
        seconds: that each may take.

    Returns:
        a line for each that failed.
    """
    failed = []
    try:
        paths = sorted(folder.iterdir())
    except FileNotFoundError:
        return []
    except OSError as error:
        return [f"hooks {folder}: {error.strerror}"]
    kind = COMPLETE if is_complete else PARTIAL
    for path in paths:
        if path.name.startswith(".") or path.name.endswith(SKIPPED):
            continue
        why = _refused(path) or _run([str(path), str(dump), kind], seconds)
        if why:
            failed.append(f"hook {path}: {why}")
    return failed


def _refused(path: Path) -> str:
    """Return why a hook is not to be run, or ""."""
    try:
        status = path.stat()
    except OSError as error:
        return error.strerror or str(error)
    if not stat.S_ISREG(status.st_mode):
        return "it is no file"
    if status.st_uid not in (0, os.geteuid()) or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        name = pasted(path)
        return f"others can write it, so it is not run: chown root {name}; chmod go-w {name}"
    if not os.access(path, os.X_OK):
        return f"it is not executable: chmod +x {pasted(path)}"
    return ""


def _run(words: list[str], seconds: float) -> str:
    """Run a program. Returns why it failed, or ""."""
    try:
        process = subprocess.Popen(words, stdin=subprocess.DEVNULL, start_new_session=True)
    except OSError as error:
        return error.strerror or str(error)
    try:
        code = process.wait(seconds)
    except subprocess.TimeoutExpired:
        return f"it took more than {seconds:g} s and was killed"
    finally:
        # What it left running has no more time either.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return _ended(code)


def _ended(code: int) -> str:
    if code < 0:
        return f"it was ended by signal {-code}"
    return f"exit code {code}" if code else ""
