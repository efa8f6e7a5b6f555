"""The folder of dumps, /var/crash by default: a folder for each dump, named by its time and kernel.

Used by gather.py, retention.py, and `pvdump list` and `log`. The rules: a folder is a dump of ours
if it has a record MARKER of this FORMAT and belongs to this user; nothing else is ever removed. A
dump is made in a folder whose name begins with PART, and gets its own name in one step, when all of
it is on stable storage; so a folder with such a name is what a killed run left, and can go.
"""

from __future__ import annotations

import dataclasses
import fcntl
import os
import re
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path

from ..dump.disk import DiskError
from ..service import records
from . import record

MARKER = "pvdump.json"
FORMAT = "pvdump dump 1"
PART = ".pvdump-part-"
LOG = "log.txt"
UNSAFE = re.compile(r"[^A-Za-z0-9._+-]")
RELEASE_MAX = 64  # as many characters as a superblock has
TIME_MAX = 253402300799  # the end of the year 9999


@dataclass(frozen=True)
class Facts:
    """What the record of a dump says.

    Attributes:
        format: FORMAT.
        target: name of the disk or file that it was on.
        uuid, dump, started: of the superblock, which together are a dump's alone.
        time: of the panic, or of collecting where that is not known; seconds since 1970.
        release: of the kernel; "" where it is not known.
        vmcore: name of the file.
        complete: whether all that the dump was to have is in it.
        missing: lines on what is not.
        encrypted: whether the file is an age file.
        reason: why the kernel died; "" where it is not known.
        lost: what could not be read of the target, though it is there; "" for nothing.
        alone: whether the log, the notes and the stacks are all that the dump was to have.
        hooks: lines on the hooks that failed.
        pending: whether the hooks that come after a dump have yet to run.
    """

    format: str
    target: str
    uuid: str
    dump: int
    started: int
    time: int
    release: str
    vmcore: str
    complete: bool
    missing: list[str] = field(default_factory=list)
    encrypted: bool = False
    reason: str = ""
    lost: str = ""
    alone: bool = False
    hooks: list[str] = field(default_factory=list)
    pending: bool = True

    def name(self) -> str:
        """Return the name of the dump's folder, but for a number behind it."""
        release = UNSAFE.sub("_", self.release)[:RELEASE_MAX] or "unknown"
        return f"{self.when():%Y-%m-%dT%H%M%SZ}-{release}"

    def when(self) -> datetime:
        """Return `time`, in UTC."""
        return datetime.fromtimestamp(min(self.time, TIME_MAX), timezone.utc)


@dataclass(frozen=True)
class Dump:
    """A dump in the folder of dumps."""

    path: Path
    facts: Facts

    def size(self) -> int:
        """Return how many bytes its files take on the disk."""
        total = 0
        for folder, _, names in os.walk(self.path):
            for name in names:
                with suppress(OSError):
                    total += os.lstat(Path(folder, name)).st_blocks * 512
        return total

    def change(self, **fields: object) -> Dump:
        """Write other values of fields into its record. Returns the dump with them."""
        facts = dataclasses.replace(self.facts, **fields)  # type: ignore[arg-type]
        record.save(self.path / MARKER, dataclasses.asdict(facts))
        return Dump(self.path, facts)


def found(directory: Path) -> list[Dump]:
    """Return the dumps in a folder of dumps, the oldest first.

    Raises:
        DiskError: the folder cannot be read. One that is not there has no dumps.
    """
    dumps = []
    try:
        paths = sorted(directory.iterdir())
    except FileNotFoundError:
        return []
    except OSError as error:
        raise DiskError(f"{directory}: {error.strerror}") from error
    for path in paths:
        if path.name.startswith(".") or not _ours(path):
            continue
        with suppress(record.RecordError, ValueError):
            facts = records.build(Facts, record.load(path / MARKER))
            if facts.format == FORMAT:
                dumps.append(Dump(path, facts))
    return sorted(dumps, key=lambda dump: (dump.facts.time, dump.path.name))


def newest(directory: Path) -> Dump:
    """Return the newest dump. Raises: as found(), and DiskError where there is none."""
    dumps = found(directory)
    if not dumps:
        raise DiskError(f"there is no dump in {directory}")
    return dumps[-1]


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Have the folder of dumps for this process alone, and without what a killed one left there.

    The folder is made if it is not there.

    Raises:
        DiskError: it cannot be used, or another process has it.
    """
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise DiskError(f"{directory}: {error.strerror}") from error
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DiskError(f"another collect is at work in {directory}") from None
        for path in sorted(directory.glob(f"{PART}*")):
            if _ours(path):
                _delete(path)
        yield
    finally:
        os.close(fd)


def begin(directory: Path, number: str) -> Path:
    """Make an empty folder for a dump, which only this user can read.

    Args:
        number: of the dump, for the name.

    Raises:
        DiskError: it cannot be made.
    """
    part = directory / f"{PART}{number}"
    try:
        part.mkdir(mode=0o700)
    except OSError as error:
        raise DiskError(f"{part}: {error.strerror}") from error
    return part


def free_name(directory: Path, facts: Facts) -> Path:
    """Return a name for a dump's folder that nothing has."""
    path = directory / facts.name()
    number = 2
    while os.path.lexists(path):
        path = directory / f"{facts.name()}-{number}"
        number += 1
    return path


def publish(part: Path, path: Path, facts: Facts) -> Dump:
    """Give a dump's folder its name, with all that is in it on stable storage.

    Raises:
        DiskError, RecordError: that cannot be done; the folder has its old name then.
    """
    record.save(part / MARKER, dataclasses.asdict(facts))
    try:
        for file in part.iterdir():
            sync(file)
        sync(part)
        part.rename(path)
        sync(path.parent)
    except OSError as error:
        raise DiskError(f"{path}: {error.strerror}") from error
    return Dump(path, facts)


def discard(part: Path) -> None:
    """Remove the folder of a dump that came to nothing."""
    shutil.rmtree(part, ignore_errors=True)


def sync(path: Path) -> None:
    """Have a file, or the names in a folder, on stable storage. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def remove(dump: Dump) -> None:
    """Remove a dump. If that is cut short, the next run goes on.

    Raises:
        DiskError: it cannot be removed.
    """
    part = dump.path.with_name(f"{PART}{dump.path.name}")
    try:
        dump.path.rename(part)
    except OSError as error:
        raise DiskError(f"{dump.path}: {error.strerror}") from error
    _delete(part)


def _delete(path: Path) -> None:
    try:
        shutil.rmtree(path)
    except OSError as error:
        raise DiskError(f"{error.filename or path}: {error.strerror}") from error


def _ours(path: Path) -> bool:
    """Tell whether a name is a folder, no link, of this user."""
    try:
        status = path.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid()
