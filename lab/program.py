"""C programs for dom0 and the guests, compiled on the host.

Used by lab.dom0 and lab.python for programs of dom0, and by tests and benchmarks for programs of
Linux guests.
The rule: a program is one static file, made of the headers and libraries of the suite it runs in;
only gcc is the host's.
"""

from __future__ import annotations

from pathlib import Path

from lab import LabError, packages
from tools import cache, process
from tools.progress import NULL, Display

FLAGS = "-std=gnu11 -O2 -Wall -Wextra -Werror -static -pthread".split()
LIBRARIES = (
    *("xenguest", "xenctrl", "xenstore", "xencall", "xenforeignmemory", "xendevicemodel"),
    *("xenevtchn", "xengnttab", "xentoollog", "xentoolcore"),
)


def build(source: Path, suite: str, progress: Display = NULL) -> Path:
    """Compile one C file for a suite, unless it is in the cache.

    Returns:
        The program, a static ELF file with the source's name.

    Raises:
        LabError: gcc fails; the message has its output.
    """
    root = packages.development(suite, progress).path
    folder = root / "usr/lib/x86_64-linux-gnu"
    # gcc looks at the host's libraries before the sysroot's, if it is not told otherwise.
    where = [f"--sysroot={root}", f"-B{folder}", f"-L{folder}"]
    libraries = ["-Wl,--start-group", *(f"-l{name}" for name in LIBRARIES), "-Wl,--end-group"]
    key = cache.digest(root, cache.file_digest(source), *FLAGS, *libraries)

    def make(made: Path) -> None:
        command = ["gcc", *FLAGS, *where, str(source), "-o", str(made / source.stem), *libraries]
        process.output(command, LabError)

    kept = cache.stamped(cache.folder("lab", suite, "programs"), source.stem, key, make)
    return kept / source.stem
