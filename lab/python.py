"""Python in a running dom0: the suite's own interpreter, cffi, Xen's libraries, and `pvdump`.

There are two commands: `pvdump`, the plain program, and `lab-pvdump`, which does the same by a fork
of a process that has imported it (lab/forking/server.py) and so starts at once.

Used by tests and benchmarks whose programs run in dom0. dom0's initramfs does not have it: put()
unpacks an archive from the job folder, so that only these tests wait for it. The rule: modules are
compiled on the host by the suite's interpreter, and dom0 gets no sources.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from lab import LabError, packages, program
from lab.cpio import Cpio
from lab.root import Root, run
from tools import cache
from tools.progress import NULL, Display

if TYPE_CHECKING:
    from lab.xen import Xen

ROOT = Path(__file__).resolve().parent.parent
TREES = ("drivers", "firmware", "host")
HOME = "/usr/lib/pvdump"
# Parts of the standard library that pvdump does not use, or that need large libraries.
LEFT_OUT = {
    *("test", "unittest", "idlelib", "lib2to3", "ensurepip", "pydoc_data", "distutils", "tkinter"),
    *("turtledemo", "curses", "dbm", "sqlite3"),
}
EXTENSIONS_LEFT_OUT = re.compile(
    r"_?(ssl|hashlib|sqlite3|g?dbm|nis|curses\w*|readline|\w*test\w*)\."
)
PACKAGES = ("cffi", "pycparser", "ply")
LIBRARIES = ("libxenevtchn.so.1", "libxengnttab.so.1", "libxentoollog.so.1")
FORKING = Path(__file__).parent / "forking"
SOCKET = "/run/pvdump.sock"
SERVE = f"""\
cd /
PYTHONPATH={":".join(f"{HOME}/{tree}" for tree in TREES)} setsid python3 {HOME}/forking/server.pyc \
    {SOCKET} </dev/null >/run/log/lab-pvdump 2>&1 &
until [ -S {SOCKET} ]; do usleep 20000; done
"""
COMMAND = f"""\
#!/bin/sh
PYTHONPATH={":".join(f"{HOME}/{tree}" for tree in TREES)} exec python3 -m pvdump "$@"
"""


def put(xen: Xen) -> None:
    """Unpack Python and `pvdump` in a running dom0, and start the server of lab-pvdump."""
    xen.unpack(_base(xen.suite, xen.progress))
    xen.unpack(_ours(xen.suite, xen.progress))
    xen.sh(SERVE)


def archives(suite: str, progress: Display = NULL) -> tuple[Path, Path]:
    """Return the two archives that put() unpacks, for guests that are to have `pvdump`."""
    return _base(suite, progress), _ours(suite, progress)


def described(suite: str, progress: Display) -> str:
    """Return text that differs when the archives that put() unpacks differ."""
    return " ".join(map(str, archives(suite, progress)))


def _base(suite: str, progress: Display) -> Path:
    """Return the archive with the interpreter, its library and Xen's libraries."""
    root = packages.python(suite, progress)
    key = cache.digest(root.path, cache.file_digest(Path(__file__)))

    def make(folder: Path) -> None:
        with progress.stage("build dom0's python"), (folder / "python.cpio").open("wb") as stream:
            archive = Cpio(stream)
            python = _interpreter(root)
            library = root.path / "usr/lib" / python.name
            extensions = sorted((library / "lib-dynload").glob("*.so"))
            extensions = [path for path in extensions if not EXTENSIONS_LEFT_OUT.match(path.name)]
            packaged = root.path / "usr/lib/python3/dist-packages"
            extensions += sorted(packaged.glob("_cffi_backend*.so"))
            names = [f"/{path.relative_to(root.path)}" for path in (python, *extensions)]
            root.put(archive, [*names, *(f"/usr/lib/x86_64-linux-gnu/{n}" for n in LIBRARIES)])
            archive.symlink("usr/bin/python3", python.name)
            _compiled(archive, root, library, f"usr/lib/{library.name}")
            for name in PACKAGES:
                _compiled(archive, root, packaged / name, f"usr/lib/python3/dist-packages/{name}")
            archive.close()

    return cache.stamped(cache.folder("lab", suite), "python", key, make) / "python.cpio"


def _ours(suite: str, progress: Display) -> Path:
    """Return the archive with this tree's packages and the two commands."""
    root = packages.python(suite, progress)
    client = program.build(FORKING / "lab-pvdump.c", suite, progress)
    sources = [path for tree in TREES for path in sorted((ROOT / tree).rglob("*.py"))]
    sources += [Path(__file__), FORKING / "server.py"]
    key = cache.digest(root.path, client, *map(cache.file_digest, sources))

    def make(folder: Path) -> None:
        with (folder / "pvdump.cpio").open("wb") as stream:
            archive = Cpio(stream)
            for tree in TREES:
                _compiled(archive, root, ROOT / tree, f"{HOME}/{tree}")
            _compiled(archive, root, FORKING, f"{HOME}/forking")
            archive.file("usr/bin/pvdump", COMMAND, 0o755)
            archive.file(f"usr/bin/{client.name}", client.read_bytes(), 0o755)
            archive.close()

    return cache.stamped(cache.folder("lab", suite), "pvdump", key, make) / "pvdump.cpio"


def _interpreter(root: Root) -> Path:
    return root.glob("usr/bin/python3.[0-9]*[0-9]")


def _compiled(archive: Cpio, root: Root, source: Path, target: str) -> None:
    """Compile the modules below a folder and put them into an archive."""
    with tempfile.TemporaryDirectory(prefix="lab-python-") as name:
        stage = Path(name)
        for path in _modules(source):
            copy = stage / path.relative_to(source)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
        arguments = ("-I", "-m", "compileall", "-q", "-b", "-s", name, "-p", f"/{target}", name)
        done = run(root, f"/usr/bin/{_interpreter(root).name}", *arguments)
        if done.returncode:
            raise LabError(f"compileall of {source}: exit {done.returncode}\n{done.stdout}")
        for path in sorted(stage.rglob("*.pyc")):
            archive.file(f"{target}/{path.relative_to(stage)}", path.read_bytes())


def _modules(source: Path) -> Iterable[Path]:
    for path in sorted(source.rglob("*.py")):
        if path.is_file() and not LEFT_OUT & set(path.relative_to(source).parts):
            yield path
