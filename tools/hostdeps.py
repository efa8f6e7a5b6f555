"""The Debian packages that must be installed on the host, and their installation.

Called by build.py before anything else, so the standard library alone. The rule: a need is looked
for as the program or file that is used, not as a package's name, since Python or QEMU may come from
elsewhere. What is missing is installed when we are root and this is a Debian; else the one apt-get
line is printed and nothing is changed. Everything not in this table is unpacked into the cache,
never installed (tools/apt.py).
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tools import Trouble

EVERY = ("image", "run", "demo", "test", "fuzz", "lint", "lab", "bench", "package")
COMPILING = ("image", "run", "demo", "test", "fuzz", "lab", "bench", "package")
RUNNING = ("demo", "test", "lab", "bench")


@dataclass(frozen=True)
class Need:
    """A Debian package, the check that its files are there, and the commands that use it."""

    package: str
    there: Callable[[], bool]
    commands: tuple[str, ...]


def program(name: str) -> Callable[[], bool]:
    """Return a check that a program is in PATH."""
    return lambda: shutil.which(name) is not None


def file(*paths: str) -> Callable[[], bool]:
    """Return a check that one of the paths exists."""
    return lambda: any(Path(path).exists() for path in paths)


def module(name: str) -> Callable[[], bool]:
    """Return a check that a Python module can be imported."""
    return lambda: importlib.util.find_spec(name) is not None


def python_headers() -> bool:
    """Return whether Python.h is there."""
    # In the virtual environment sysconfig still names the headers of the Python it was made from.
    return Path(sysconfig.get_path("include"), "Python.h").exists()


NEEDS = (
    # Debian's python3 leaves ensurepip out of the standard library until python3-venv is installed.
    Need("python3-venv", module("ensurepip"), EVERY),
    Need("ca-certificates", file("/etc/ssl/certs/ca-certificates.crt"), EVERY),
    Need("gcc", program("gcc"), COMPILING),
    Need("binutils", program("ld"), COMPILING),
    Need("libc6-dev", file("/usr/include/stdio.h"), COMPILING),
    Need("python3-dev", python_headers, ("test", "fuzz")),
    Need("nbdkit", program("nbdkit"), ("test", "fuzz")),
    Need("qemu-utils", program("qemu-nbd"), ("test", "fuzz")),
    Need("qemu-system-x86", program("qemu-system-x86_64"), RUNNING),
)


def missing(command: str) -> list[str]:
    """Return the packages that `command` needs and this host does not have."""
    return [need.package for need in NEEDS if command in need.commands and not need.there()]


def ensure(command: str) -> None:
    """See to it that the host has what `command` needs.

    Raises Trouble with the apt-get line when packages are missing and we may not install them.
    """
    packages = missing(command)
    if not packages:
        return
    line = f"apt-get install --no-install-recommends {' '.join(packages)}"
    if os.geteuid() != 0:
        raise Trouble(f"Debian packages are missing on this host; as root run\n\n    {line}\n")
    if shutil.which("apt-get") is None:
        raise Trouble(f"missing on this host, by Debian's package names: {' '.join(packages)}")
    print(f"host packages: installing {' '.join(packages)}", flush=True)
    run_apt(["update"])
    run_apt(["install", "-y", "--no-install-recommends", *packages])
    importlib.invalidate_caches()
    if still := missing(command):
        raise Trouble(
            f"{line} ran, yet what {' '.join(still)} should give is not there for "
            f"{sys.executable}; is that Debian's own python3?"
        )


def run_apt(arguments: list[str]) -> None:
    """Run apt-get with one line of progress; its own output is shown only when it fails."""
    watch, status = os.pipe()
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            ["apt-get", "-q", "-o", f"APT::Status-Fd={status}", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            pass_fds=[status],
            env=dict(os.environ, DEBIAN_FRONTEND="noninteractive"),
        )
        os.close(status)
        with os.fdopen(watch, errors="replace") as lines:
            for text in lines:
                show(arguments[0], text)
        code = process.wait()
        if sys.stdout.isatty():
            print()
        if code:
            log.seek(0)
            tail = "\n".join(log.read().splitlines()[-15:])
            raise Trouble(f"apt-get {' '.join(arguments)} failed ({code}):\n{tail}")


def show(stage: str, text: str) -> None:
    """Print one line of apt's status protocol: kind:package:percent:description."""
    fields = text.rstrip("\n").split(":", 3)
    if sys.stdout.isatty() and len(fields) == 4 and fields[0] in ("dlstatus", "pmstatus"):
        percent = float(fields[2].replace(",", ".") or 0)
        print(f"\r\033[Kapt-get {stage} {percent:3.0f} %  {fields[3][:60]}", end="", flush=True)
