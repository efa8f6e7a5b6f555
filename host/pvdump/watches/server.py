"""The status socket: JSON lines over a unix socket that only its owner can open.

A request is {"command": "status"}; a reply is the status on one line, or {"error": ...}. One thread
serves all clients, such as `pvdump watches show` and `pvdump blkback show`. The rule: nothing that
a client does or fails to do holds up the dispatcher or another client. A request has a bound, a
client that has not taken its reply gets no other, and if there are more than CLIENTS, the one that
was silent longest is closed.
"""

from __future__ import annotations

import json
import selectors
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, TypeVar

from ..service import records
from ..service.sockets import SocketFile, SocketRefused


class Sayable(Protocol):
    """A status that can be sent."""

    def json(self) -> dict[str, Any]:
        """Return the record as JSON's types."""


REQUEST_MAX = 1024
REPLY_MAX = 64 << 20
CLIENTS = 16
RETRY = 1.0  # seconds
T = TypeVar("T")
SECONDS = 10.0  # that ask() waits for each part of the reply


class StatusError(Exception):
    """The socket cannot be made or asked; the message says why."""


class Client:
    """One client, with the part of its request that has come and the rest of its reply."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.request = bytearray()
        self.reply = memoryview(b"")


class StatusServer:
    """The socket and the thread that serves it.

    Args:
        path: of the socket, which is made here and removed by close().
        status: gives the status.

    Raises:
        StatusError: the socket cannot be made.
    """

    def __init__(self, path: Path, status: Callable[[], Sayable]) -> None:
        self._status = status
        try:
            self._file = SocketFile(path, CLIENTS)
        except SocketRefused as error:
            raise StatusError(str(error)) from None
        self._listener = self._file.socket
        self._clients: dict[int, Client] = {}  # by descriptor, the most recently active one last
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._woken, self._wake = socket.socketpair()
        self._selector.register(self._woken, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._serve, name="watches-status", daemon=True)
        self._thread.start()

    def __enter__(self) -> StatusServer:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """End the thread and remove the socket."""
        self._wake.close()
        self._thread.join()
        self._file.close()

    def _serve(self) -> None:
        while True:
            # After a shortage of descriptors, new clients are accepted a second later.
            paused = self._listener not in self._selector.get_map()
            found = self._selector.select(RETRY if paused else None)
            if paused:
                self._selector.register(self._listener, selectors.EVENT_READ)
            for key, events in found:
                if key.fileobj is self._woken:
                    self._end()
                    return
                if key.fileobj is self._listener:
                    self._accept()
                    continue
                client = self._clients.get(key.fd)
                if client is None:
                    continue  # dropped in this very round
                try:
                    self._advance(client, events)
                except BlockingIOError:
                    pass
                except OSError:
                    self._drop(client)

    def _end(self) -> None:
        for client in list(self._clients.values()):
            self._drop(client)
        self._woken.close()
        self._selector.close()

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except BlockingIOError:
            return  # gone again
        except OSError:
            self._selector.unregister(self._listener)
            return
        connection.setblocking(False)
        if len(self._clients) == CLIENTS:
            self._drop(next(iter(self._clients.values())))
        self._clients[connection.fileno()] = Client(connection)
        self._selector.register(connection, selectors.EVENT_READ)

    def _drop(self, client: Client) -> None:
        del self._clients[client.connection.fileno()]
        self._selector.unregister(client.connection)
        client.connection.close()

    def _advance(self, client: Client, events: int) -> None:
        fd = client.connection.fileno()
        self._clients[fd] = self._clients.pop(fd)
        if events & selectors.EVENT_WRITE:
            client.reply = client.reply[client.connection.send(client.reply) :]
        else:
            data = client.connection.recv(REQUEST_MAX)
            client.request += data
            if not data:
                self._drop(client)
                return
        line, newline, rest = client.request.partition(b"\n")
        if not client.reply and (newline or len(line) > REQUEST_MAX):
            client.request = rest
            client.reply = memoryview(self._answer(bytes(line)))
        wanted = selectors.EVENT_WRITE if client.reply else selectors.EVENT_READ
        self._selector.modify(client.connection, wanted)

    def _answer(self, line: bytes) -> bytes:
        try:
            if len(line) > REQUEST_MAX:
                raise ValueError(f"a request has at most {REQUEST_MAX} bytes")
            request = json.loads(line)
            if request != {"command": "status"}:
                raise ValueError('the only request is {"command": "status"}')
            reply = self._status().json()
        except (ValueError, RecursionError) as error:
            reply = {"error": str(error)}
        return json.dumps(reply).encode() + b"\n"


def ask(path: Path, kind: type[T]) -> T:
    """Ask a process for its status.

    Args:
        path: of its status socket.
        kind: the dataclass of the status.

    Returns:
        an object of that class.

    Raises:
        StatusError: nobody answers, or the answer is no such status.
    """
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(SECONDS)
            connection.connect(str(path))
            connection.sendall(b'{"command": "status"}\n')
            with connection.makefile("rb") as stream:
                line = stream.readline(REPLY_MAX)
    except OSError as error:
        raise StatusError(f"{path}: {error.strerror or error}; is its process running?") from error
    try:
        value: Any = json.loads(line)
        if isinstance(value, dict) and "error" in value:
            raise ValueError(f"it says {value['error']!r}")
        return records.build(kind, value)
    except (ValueError, RecursionError) as error:
        raise StatusError(f"{path}: not the status socket that was expected: {error}") from error
