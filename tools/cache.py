"""The cache: everything downloaded or built, in one folder outside the tree.

Called by all of tools/ and lab/. The rule: a name in the cache either holds the complete result
for its key or does not exist. So makers work in a temporary folder beside the final name, which is
then renamed into place; an interrupted run leaves nothing that looks finished. Two processes may
want the same thing at once: a lock file a name makes the second one wait and find it done.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

STAMP = ".stamp"


def base() -> Path:
    """The cache's top folder: $PVDUMP_CACHE, else $XDG_CACHE_HOME/pvdump, else ~/.cache/pvdump."""
    if own := os.environ.get("PVDUMP_CACHE"):
        return Path(own).absolute()
    if xdg := os.environ.get("XDG_CACHE_HOME"):
        return Path(xdg).absolute() / "pvdump"
    return Path.home() / ".cache" / "pvdump"


def folder(*names: str) -> Path:
    """A folder of the cache, made when it is not there."""
    path = base().joinpath(*names)
    path.mkdir(parents=True, exist_ok=True)
    return path


def digest(*parts: object) -> str:
    """A key of 16 hex digits from anything whose str() tells it apart."""
    text = "\0".join(str(part) for part in parts)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def file_digest(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock that belongs to `path`; waits for the process that has it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(f".{path.name}.lock").open("w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def stamped(path: Path, key: str, make: Callable[[Path], None]) -> Path:
    """Give the folder `path`, made by `make` unless it is there with the same key.

    path: folder in the cache.
    key: says what the content was made from; another key makes the folder anew.
    make: gets an empty folder and fills it; when it raises nothing is kept.
    Returns path.
    """
    stamp = path / STAMP
    with locked(path):
        if stamp.exists() and stamp.read_text(encoding="utf-8") == key:
            return path
        scratch = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
        try:
            make(scratch)
            (scratch / STAMP).write_text(key, encoding="utf-8")
            scratch.chmod(0o755)
            if path.exists():
                shutil.rmtree(path)
            scratch.rename(path)
        except BaseException:
            shutil.rmtree(scratch, ignore_errors=True)
            raise
    return path
