"""The virtual environment that everything but build.py's first lines runs in.

Called by build.py, so the standard library alone. The rule: its name in the cache says what it was
made from (Python and requirements.txt), every file in it was checked against a hash there, and it
counts as made only when the stamp, written last, is in it. It is built at its final place under a
lock, because the scripts of an environment hold its path and so it cannot be renamed. Of the
environments the ones used last are kept.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

from tools import Trouble, cache

STAMP = "pvdump-complete"


def ensure(requirements: Path) -> Path:
    """Make the environment unless it is there.

    requirements: the requirements.txt with hashes.
    Returns the path of its python.
    """
    version = "{}.{}.{}".format(*sys.version_info[:3])
    key = cache.digest(sys.base_prefix, requirements.read_text(encoding="utf-8"))
    try:
        home = cache.base() / "venv" / f"python{version}-{key}"
    except RuntimeError as error:  # neither HOME nor an entry of the user database
        raise Trouble("no home directory: set PVDUMP_CACHE to a folder for downloads") from error
    python = home / "bin" / "python"
    try:
        with cache.locked(home):
            if not complete(home):
                create(home, requirements)
            # build.py goes on in it by exec.
            cache.hold(home / STAMP, across_exec=True)
        cache.prune(home.parent, f"python{version}", stamp=STAMP)
    except OSError as error:
        raise Trouble(
            f"the cache {cache.base()} cannot be used: {error.strerror}: {error.filename}; "
            "set PVDUMP_CACHE to a folder that can be written"
        ) from error
    return python


def complete(home: Path) -> bool:
    """Return whether the environment was made to its end."""
    # bin/python is a link: the second test fails when the Python it was made from has gone.
    return (home / STAMP).exists() and (home / "bin" / "python").exists()


def create(home: Path, requirements: Path) -> None:
    """Make the environment and install the pinned packages. Raises Trouble."""
    print(f"python environment: making {home}", flush=True)
    shutil.rmtree(home, ignore_errors=True)
    base = Path(getattr(sys, "_base_executable", sys.executable))
    # -I: the caller's PYTHON* variables and user site must have no effect.
    run([str(base), "-I", "-m", "venv", str(home)])
    total = len(re.findall(r"^[A-Za-z0-9_.-]+==", requirements.read_text("utf-8"), re.MULTILINE))
    install = [
        *(str(home / "bin" / "python"), "-I", "-m", "pip", "install", "--no-input"),
        *("--disable-pip-version-check", "--progress-bar", "off", "--no-deps"),
        *("--require-hashes", "--only-binary", ":all:", "--requirement", str(requirements)),
    ]
    run(install, total)
    (home / STAMP).touch()


def run(command: list[str], total: int = 0) -> None:
    """Run a command; show the packages pip comes to and, when it fails, the end of its output."""
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    assert process.stdout is not None
    lines: list[str] = []
    count = 0
    for line in process.stdout:
        lines.append(line)
        if line.startswith("Collecting "):
            count += 1
            name = line.split()[1]
            if sys.stdout.isatty():
                print(f"\r\033[K  {count}/{total} {name}", end="", flush=True)
    if count and sys.stdout.isatty():
        print("\r\033[K", end="")
    if process.wait():
        tail = "".join(lines[-15:])
        raise Trouble(f"{' '.join(command[:4])} ... failed ({process.returncode}):\n{tail}")
