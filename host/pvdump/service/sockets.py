"""A unix socket that a server listens on, as a file.

Made by `pvdump xenstored` and by servers of a status. The rules: only its owner can open it, from
the moment it is there; it replaces only a socket that no server listens on; it is removed with its
server, unless another server's socket has replaced it by then.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from pathlib import Path


class SocketRefused(Exception):
    """The socket cannot be made there; the message names the path and says why."""


class SocketFile:
    """A listening, non-blocking unix socket.

    Args:
        path: of its file.
        backlog: connections that may wait to be accepted.

    Raises:
        SocketRefused: it cannot be made there.
    """

    def __init__(self, path: Path, backlog: int) -> None:
        self._path = path
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            _clear(path)
            # bind() gives the file the socket's mode; chmod() would come too late.
            os.fchmod(self.socket.fileno(), 0o600)
            self.socket.bind(str(path))
            self._made = _identity(path)
            self.socket.listen(backlog)
            self.socket.setblocking(False)
        except OSError as error:
            self.socket.close()
            raise SocketRefused(f"{path}: {error.strerror or error}") from None
        except SocketRefused:
            self.socket.close()
            raise

    def close(self) -> None:
        """Stop listening and remove the file."""
        with contextlib.suppress(OSError):
            if _identity(self._path) == self._made:
                self._path.unlink()
        self.socket.close()


def _identity(path: Path) -> tuple[int, int]:
    found = path.lstat()
    return found.st_dev, found.st_ino


def _clear(path: Path) -> None:
    """Remove a dead server's socket. Raises SocketRefused for anything else, and OSError."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise SocketRefused(f"{path} is there and is no socket; name another path")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
        except BlockingIOError:
            pass  # its queue is full, so somebody serves it
    raise SocketRefused(f"{path}: another server listens there; name another path")
