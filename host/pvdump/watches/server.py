"""The status socket: JSON lines over a unix socket that only its owner can open.

A request is {"command": "status"}, a reply the status on one line, or {"error": ...}. Served by one
thread for any number of programs; asked by `pvdump watches show` and `pvdump blkback show`. The
rules: nothing that a client does or leaves undone holds up the dispatcher or another client. A
request has a bound, a client that has not taken its reply gets no other, and of more than CLIENTS
the one that was silent longest is let go.
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
    """What a status is made of."""

    def json(self) -> dict[str, Any]: ...


REQUEST_MAX = 1024
REPLY_MAX = 64 << 20
CLIENTS = 16
RETRY = 1.0  # seconds
T = TypeVar("T")
SECONDS = 10.0  # that ask() waits for each part of the reply


class StatusError(Exception):
    """The socket cannot be made or asked, and why."""


class Client:
    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.request = bytearray()
        self.reply = memoryview(b"")


class StatusServer:
    """path: of the socket, which is made here and removed by close(). Raises StatusError."""

    def __init__(self, path: Path, status: Callable[[], Sayable]) -> None:
        self._status = status
        try:
            self._file = SocketFile(path, CLIENTS)
        except SocketRefused as error:
            raise StatusError(str(error)) from None
        self._listener = self._file.socket
        self._clients: dict[int, Client] = {}  # by fd, the one heard of last at the end
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._bell, self._wake = socket.socketpair()
        self._selector.register(self._bell, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._serve, name="watches-status", daemon=True)
        self._thread.start()

    def __enter__(self) -> StatusServer:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        self._wake.close()
        self._thread.join()
        self._file.close()

    def _serve(self) -> None:
        while True:
            # Without a descriptor for a client, who comes next is looked at a second later.
            deaf = self._listener not in self._selector.get_map()
            found = self._selector.select(RETRY if deaf else None)
            if deaf:
                self._selector.register(self._listener, selectors.EVENT_READ)
            for key, events in found:
                if key.fileobj is self._bell:
                    self._end()
                    return
                if key.fileobj is self._listener:
                    self._accept()
                    continue
                client = self._clients.get(key.fd)
                if client is None:
                    continue  # let go in this very round
                try:
                    self._advance(client, events)
                except BlockingIOError:
                    pass
                except OSError:
                    self._drop(client)

    def _end(self) -> None:
        for client in list(self._clients.values()):
            self._drop(client)
        for thing in (self._bell, self._selector):
            thing.close()

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
    """What a process says on its status socket, as a dataclass. Raises StatusError."""
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
