"""The output of a collected vmcore: a file of its own, or standard output.

Used by collect. The rules: a file appears under its name whole and in one step, or not at all, and
never in place of another one; a finished copy is never removed. Until then it has the name with
PART at its end, so that what a killed collect leaves is found by the next one.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
from pathlib import Path

from pvfw.superblock import MIB

from .disk import DiskError, exists
from .newfile import refuse_dev

PART = ".pvdump-part"
NAME_MAX = 255  # bytes
PIECE = 65536  # of zeros that become a hole
ZEROS = bytes(PIECE)


class OutputFile:
    """A file that is made beside its name, readable by its owner alone: a dump holds passwords.

    Used as a context: the block's end removes what was not published.

    Args:
        path: must not exist.
        size: bytes that there must be room for.

    Raises:
        DiskError: it cannot be made there, or there is no room.
    """

    def __init__(self, path: Path, size: int) -> None:
        self.path = path
        self._at = 0
        self._refuse_existing()
        if not path.parent.is_dir():
            raise DiskError(f"{path}: there is no folder {path.parent}")
        refuse_dev(path)
        self._refuse_full(size)
        name = os.fsencode(path.name)[: NAME_MAX - len(PART)]
        self.part = path.parent / (os.fsdecode(name) + PART)
        self._fd = self._make()
        self._finished = False

    def _refuse_existing(self) -> None:
        if exists(self.path):
            raise DiskError(f"{self.path} exists already; a dump never goes over another file")

    def _refuse_full(self, size: int) -> None:
        try:
            room = os.statvfs(self.path.parent)
        except OSError as error:
            raise DiskError(f"{self.path.parent}: {error.strerror}") from error
        free = room.f_bavail * room.f_frsize
        # A file system that has no figures says 0 of 0.
        if room.f_blocks and free < size:
            raise DiskError(
                f"{self.path.parent} has {free // MIB} MiB free, the dump needs {size // MIB} MiB; "
                f"name another folder, or - for standard output"
            )

    def _make(self) -> int:
        try:
            fd = os.open(self.part, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            raise DiskError(self._left_over()) from None
        except OSError as error:
            raise DiskError(f"{self.path}: {error.strerror}") from error
        with contextlib.suppress(OSError):  # a file system may have no locks
            fcntl.flock(fd, fcntl.LOCK_EX)
        return fd

    def _left_over(self) -> str:
        try:
            fd = os.open(self.part, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
        except OSError as error:
            return f"{self.part}: {error.strerror}"
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return f"{self.part}: another collect is writing it"
        finally:
            os.close(fd)
        return (
            f"{self.part} is what a collect that was killed left of a dump, with the guest's "
            f"memory in it: remove it, or use it if it is all that there is"
        )

    def write(self, data: bytes) -> None:
        """Append data; zeros become holes.

        Raises:
            DiskError: there is no room, or the medium is broken.
        """
        self.put(self._at, data)

    def put(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        """Write data at an offset where none was written before; zeros become holes.

        Raises:
            DiskError: there is no room, or the medium is broken.
        """
        try:
            for start in range(0, len(data), PIECE):
                piece = data[start : start + PIECE]
                if piece != ZEROS[: len(piece)]:
                    self._put(piece, offset + start)
        except OSError as error:
            raise DiskError(f"{self.path}: {error.strerror}") from error
        self._at = max(self._at, offset + len(data))

    def _put(self, data: bytes | bytearray | memoryview, offset: int) -> None:
        while data:
            done = os.pwrite(self._fd, data, offset)
            data, offset = data[done:], offset + done

    def extend(self, size: int) -> None:
        """Have the file end at `size` bytes, with a hole if nothing is there."""
        self._at = max(self._at, size)

    def replace_start(self, data: bytes) -> bool:
        """Write other bytes in place of the first ones. Returns whether that can be done."""
        try:
            self._put(data, 0)
        except OSError as error:
            raise DiskError(f"{self.path}: {error.strerror}") from error
        return True

    def publish(self) -> None:
        """Give the file its name, with all of it on stable storage.

        Raises:
            DiskError: it cannot have the name; the message says which one it has.
        """
        self._finished = True
        try:
            self._end()
            os.fsync(self._fd)
        except OSError as error:
            raise DiskError(
                f"{self.path}: {error.strerror}, when its end was to be on stable storage; "
                f"{self._kept('all that was copied is')}"
            ) from error
        try:
            self._rename()
        except FileExistsError:
            raise DiskError(
                f"{self.path} appeared meanwhile and was not touched; {self._kept('the dump is')}"
            ) from None
        except OSError as error:
            raise DiskError(
                f"{self.path}: {error.strerror}; {self._kept('the dump is whole, as')}"
            ) from error

    def _end(self) -> None:
        """Give the file its size, where it ends with a hole; not each file system can truncate."""
        if os.fstat(self._fd).st_size < self._at:
            self._put(b"\0", self._at - 1)

    def _kept(self, what: str) -> str:
        if exists(self.part):
            return f"{what} {self.part}"
        return f"{self.part} was removed meanwhile: collect again"

    def _rename(self) -> None:
        try:
            # Fails where the name has been taken meanwhile, which rename() does not.
            os.link(self.part, self.path)
        except FileExistsError:
            raise
        except OSError:
            # FAT has no links, NFS and FUSE may have none, and a folder may not allow them.
            if exists(self.path):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST)) from None
            self.part.rename(self.path)
        else:
            with contextlib.suppress(OSError):  # then it has both names
                self.part.unlink()
        _sync(self.path.parent)

    def __enter__(self) -> OutputFile:
        return self

    def __exit__(self, *exception: object) -> None:
        if not self._finished:
            self.part.unlink(missing_ok=True)
        os.close(self._fd)


def _sync(folder: Path) -> None:
    """Have the names in a folder on stable storage, where its file system can."""
    with contextlib.suppress(OSError):
        fd = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


class OutputStream:
    """Standard output, where everything goes as it comes.

    Args:
        fd: of standard output.
        text: whether a terminal may have it.

    Raises:
        DiskError: it is a terminal that may not have it.
    """

    def __init__(self, fd: int, text: bool = False) -> None:
        if not text and os.isatty(fd):
            raise DiskError("standard output is a terminal; name a file, or a pipe after it")
        self._fd = fd

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Append data.

        Raises:
            DiskError: it cannot be written. BrokenPipeError: nobody reads it any more.
        """
        view = memoryview(data)
        try:
            while view:
                view = view[self._some(view) :]
        except BrokenPipeError:
            raise
        except OSError as error:
            raise DiskError(f"standard output: {error.strerror}") from error

    def _some(self, data: memoryview) -> int:
        """Write some of data. Returns how many bytes."""
        while True:
            try:
                return os.write(self._fd, data)
            except BlockingIOError:  # a pipe or socket that another program made so, and is full
                room = select.poll()
                room.register(self._fd, select.POLLOUT)
                room.poll()

    def replace_start(self, data: bytes) -> bool:
        """Leave what was sent. Returns False: the exit code alone tells what is missing."""
        return False

    def publish(self) -> None:
        """Do nothing: the bytes are out."""

    def __enter__(self) -> OutputStream:
        return self

    def __exit__(self, *exception: object) -> None:
        pass
