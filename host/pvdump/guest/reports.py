"""The reports of a dump, made by `pvdump report` in a process of its own.

Used by gather.py. The rule: a report that fails, crashes or takes too long costs no more than
itself.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

SECONDS = 120  # that a report may take; the boot waits for it
TEXT, PAGE = "report.txt", "report.html"
# The modules are looked for where this process found them, and not in the current folder.
PROGRAM = """\
import sys
sys.path[:] = {path!r}
from pvdump.cli import main
sys.exit(main(sys.argv[1:]))
"""


def write(folder: Path, vmcore: str, seconds: float = SECONDS) -> list[str]:
    """Write both reports into a dump's folder.

    Args:
        folder: of the dump.
        vmcore: name of the file in it.
        seconds: that each may take.

    Returns:
        a line for each that cannot be had.
    """
    failed = []
    page = ["--html", str(folder / PAGE)]
    for name, more, out in [(TEXT, [], folder / TEXT), (PAGE, page, Path(os.devnull))]:
        why = _run([*more, str(folder / vmcore)], out, seconds)
        if why:
            failed.append(f"no {name}: {why}")
            (folder / name).unlink(missing_ok=True)
    return failed


def _run(words: Sequence[str], out: Path, seconds: float) -> str:
    """Run `pvdump report`. Returns why it failed, or ""."""
    program = PROGRAM.format(path=[each for each in sys.path if each])
    fd = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        done = subprocess.run(
            [sys.executable, "-c", program, "report", *words],
            stdin=subprocess.DEVNULL,
            stdout=fd,
            stderr=subprocess.PIPE,
            umask=0o077,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"it took more than {seconds:g} s"
    except OSError as error:
        return error.strerror or str(error)
    finally:
        os.close(fd)
    if not done.returncode:
        return ""
    lines = done.stderr.decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else f"`pvdump report` ended with {done.returncode}"
