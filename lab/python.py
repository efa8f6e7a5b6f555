"""Python in a running dom0: the suite's own interpreter, cffi, Xen's libraries, and `pvdump`.

Used by tests and benchmarks whose programs run in dom0. It is not part of what dom0 boots with: an
archive is put into the job folder and unpacked there, so only who wants it waits for it. The rule:
modules are compiled on the host by the suite's interpreter, and go without their sources.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from lab import LabError, packages
from lab.cpio import Cpio
from lab.root import Root, run
from tools import cache
from tools.progress import Display

if TYPE_CHECKING:
    from lab.xen import Xen

ROOT = Path(__file__).resolve().parent.parent
TREES = ("drivers", "firmware", "host")
HOME = "/usr/lib/pvdump"
# Of the standard library: what is for people or for other programs, or needs large libraries.
LEFT_OUT = {
    *("test", "unittest", "idlelib", "lib2to3", "ensurepip", "pydoc_data", "distutils", "tkinter"),
    *("turtledemo", "curses", "dbm", "sqlite3"),
}
EXTENSIONS_LEFT_OUT = re.compile(
    r"_?(ssl|hashlib|sqlite3|g?dbm|nis|curses\w*|readline|\w*test\w*)\."
)
PACKAGES = ("cffi", "pycparser", "ply")
LIBRARIES = ("libxenevtchn.so.1", "libxengnttab.so.1", "libxentoollog.so.1")
COMMAND = f"""\
#!/bin/sh
PYTHONPATH={":".join(f"{HOME}/{tree}" for tree in TREES)} exec python3 -m pvdump "$@"
"""


def put(xen: Xen) -> None:
    """Unpack Python and `pvdump` in a running dom0."""
    xen.unpack(_base(xen.suite, xen.progress))
    xen.unpack(_ours(xen.suite, xen.progress))


def _base(suite: str, progress: Display) -> Path:
    """The archive with the interpreter, its library and Xen's."""
    root = packages.python(suite, progress)
    key = cache.digest(root.path, cache.file_digest(Path(__file__)))

    def make(folder: Path) -> None:
        with progress.stage("build dom0's python"), (folder / "python.cpio").open("wb") as stream:
            archive = Cpio(stream)
            program = _interpreter(root)
            library = root.path / "usr/lib" / program.name
            extensions = sorted((library / "lib-dynload").glob("*.so"))
            extensions = [path for path in extensions if not EXTENSIONS_LEFT_OUT.match(path.name)]
            packaged = root.path / "usr/lib/python3/dist-packages"
            extensions += sorted(packaged.glob("_cffi_backend*.so"))
            names = [f"/{path.relative_to(root.path)}" for path in (program, *extensions)]
            root.put(archive, [*names, *(f"/usr/lib/x86_64-linux-gnu/{n}" for n in LIBRARIES)])
            archive.symlink("usr/bin/python3", program.name)
            _compiled(archive, root, library, f"usr/lib/{library.name}")
            for name in PACKAGES:
                _compiled(archive, root, packaged / name, f"usr/lib/python3/dist-packages/{name}")
            archive.close()

    return cache.stamped(cache.folder("lab", suite), "python", key, make) / "python.cpio"


def _ours(suite: str, progress: Display) -> Path:
    """The archive with this tree's packages and the command."""
    root = packages.python(suite, progress)
    sources = [path for tree in TREES for path in sorted((ROOT / tree).rglob("*.py"))]
    key = cache.digest(
        root.path, cache.file_digest(Path(__file__)), *(cache.file_digest(p) for p in sources)
    )

    def make(folder: Path) -> None:
        with (folder / "pvdump.cpio").open("wb") as stream:
            archive = Cpio(stream)
            for tree in TREES:
                _compiled(archive, root, ROOT / tree, f"{HOME}/{tree}")
            archive.file("usr/bin/pvdump", COMMAND, 0o755)
            archive.close()

    return cache.stamped(cache.folder("lab", suite), "pvdump", key, make) / "pvdump.cpio"


def _interpreter(root: Root) -> Path:
    return root.glob("usr/bin/python3.[0-9]*[0-9]")


def _compiled(archive: Cpio, root: Root, source: Path, target: str) -> None:
    """Put in the modules below a folder, compiled."""
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
