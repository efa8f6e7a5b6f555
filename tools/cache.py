"""The cache: everything downloaded or built, in one folder outside the tree.

Called by all of tools/ and lab/. The rule: a name in the cache either holds the complete result
for its key or does not exist, and what it holds never changes. So the key is part of the name: two
checkouts with different sources use different folders. Makers work in a temporary folder beside
the final name, which is then renamed into place; an interrupted run leaves nothing that looks
finished. Two processes may want the same thing at once: the second one waits for the lock and
finds it done. Of each kind of folder the ones used last are kept. A process holds a shared lock on
the stamp of every folder it was given, until it ends, so that none in use is removed.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

STAMP = ".stamp"
KEEP = 3  # folders of one kind
KEY = re.compile(r"[0-9a-f]{16}")

_held: dict[Path, int] = {}  # stamp -> descriptor with a shared lock on it


def base() -> Path:
    """Return the cache's top: $PVDUMP_CACHE, else $XDG_CACHE_HOME/pvdump, else ~/.cache/pvdump."""
    if own := os.environ.get("PVDUMP_CACHE"):
        return Path(own).absolute()
    if xdg := os.environ.get("XDG_CACHE_HOME"):
        return Path(xdg).absolute() / "pvdump"
    return Path.home() / ".cache" / "pvdump"


def folder(*names: str) -> Path:
    """Return a folder of the cache, made if it is not there."""
    path = base().joinpath(*names)
    path.mkdir(parents=True, exist_ok=True)
    return path


def digest(*parts: object) -> str:
    """Return a key of 16 hex digits from anything whose str() tells it apart."""
    text = "\0".join(str(part) for part in parts)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file, in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock that belongs to `path`; waits for the process that has it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = _lock(path, wait=True)
    assert descriptor is not None
    try:
        yield
    finally:
        os.close(descriptor)


def stamped(
    folder: Path, name: str, key: str, make: Callable[[Path], None], keep: int = KEEP
) -> Path:
    """Give the folder `folder`/`name`-`key`, made by `make` unless it is there.

    The folder stays as long as this process runs. After making one, older folders of the same name
    are removed, down to `keep`.

    Args:
        folder: Folder of the cache that holds this kind of thing.
        name: The kind, such as "dom0".
        key: What the content was made from, as digest() gives it.
        make: Gets an empty folder and fills it; when it raises, nothing is kept.
        keep: How many folders of this name stay; those in use by any process stay besides.

    Returns:
        The folder's path.
    """
    path = folder / f"{name}-{key}"
    with locked(path):
        if made := not (path / STAMP).exists():
            _make(path, make)
        hold(path / STAMP)
    if made:
        prune(folder, name, keep)
    return path


def hold(stamp: Path, across_exec: bool = False) -> None:
    """Mark a folder as used now, and as in use until this process ends.

    Args:
        stamp: The file in the folder that says it is complete. The caller holds the folder's lock.
        across_exec: Also hold it after this process has become another program.
    """
    os.utime(stamp)
    if stamp not in _held:
        _held[stamp] = os.open(stamp, os.O_RDONLY | os.O_CLOEXEC)
        fcntl.flock(_held[stamp], fcntl.LOCK_SH)
    if across_exec:
        os.set_inheritable(_held[stamp], True)


def prune(folder: Path, name: str, keep: int = KEEP, stamp: str = STAMP) -> None:
    """Remove the folders `name`-KEY that were not used for longest, beyond `keep`.

    A folder that is in use, or being made, stays. `stamp` is the file that says it is complete.
    """
    found = [path for path in folder.glob(f"{name}-*") if _is_of(path, name, stamp)]
    for path in sorted(found, key=lambda path: _used(path / stamp), reverse=True)[keep:]:
        lock = _lock(path, wait=False)
        if lock is None:
            continue
        try:
            if _free(path / stamp):
                discard(path)
        finally:
            os.close(lock)


def discard(path: Path) -> None:
    """Remove a folder of the cache; its name is gone at once. The caller holds its lock."""
    if held := _held.pop(path / STAMP, None):
        os.close(held)
    with contextlib.suppress(FileNotFoundError):
        gone = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
        path.rename(gone / path.name)
        shutil.rmtree(gone, ignore_errors=True)
    path.with_name(f".{path.name}.lock").unlink(missing_ok=True)


def _make(path: Path, make: Callable[[Path], None]) -> None:
    for left in path.parent.glob(f".{path.name}.*"):
        if left.is_dir():  # of a maker that was killed: we have the lock
            shutil.rmtree(left, ignore_errors=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        make(scratch)
        (scratch / STAMP).touch()
        scratch.chmod(0o755)
        if path.exists():
            shutil.rmtree(path)
        scratch.rename(path)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise


def _lock(path: Path, wait: bool) -> int | None:
    """Return a descriptor with the lock of `path`, or None if it is taken and not `wait`."""
    file = path.with_name(f".{path.name}.lock")
    how = fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB
    while True:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, how)
            # The process that removes a folder removes its lock's file too.
            if os.path.samestat(os.fstat(descriptor), file.stat()):
                return descriptor
        except BlockingIOError:
            os.close(descriptor)
            return None
        except FileNotFoundError:
            pass
        os.close(descriptor)


def _is_of(path: Path, name: str, stamp: str) -> bool:
    key = path.name.removeprefix(f"{name}-")
    return bool(KEY.fullmatch(key)) and (path / stamp).exists()


def _used(stamp: Path) -> float:
    with contextlib.suppress(FileNotFoundError):
        return stamp.stat().st_mtime
    return 0.0


def _free(stamp: Path) -> bool:
    """Return whether no process, this one included, holds the folder of `stamp`."""
    try:
        descriptor = os.open(stamp, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True
