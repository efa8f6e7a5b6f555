"""The store on a unix socket: one thread serves any number of clients, all as domain 0.

Run by `pvdump xenstored` and by tests. Rules: nothing here waits for a client. A client that does
not read is not read from, and is closed when too much waits for it. A client that breaks the
protocol is closed.
Source: Xen tools/libs/store/xs.c for what clients expect.
"""

from __future__ import annotations

import contextlib
import heapq
import selectors
import socket
import time
from pathlib import Path

from xenpv.errors import RingCorrupt

from ..service.sockets import SocketFile
from .domain import DOM0
from .server import Xenstored

READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE
CHUNK = 1 << 16  # bytes of one read or write
BACKLOG = 128


class Client:
    """A connected socket and its connection to the store."""

    def __init__(self, unix: UnixTransport, sock: socket.socket, number: int) -> None:
        self.unix = unix
        self.sock = sock
        self.number = number
        self.connection = unix.server.connect(DOM0, f"client{number}")
        self.connection.attach(
            wake=lambda: unix.due.update({self: None}),
            now=time.monotonic_ns,
            wake_at=lambda when: unix.wake_at(self, when),
        )
        self.mask = READ

    def ready(self, mask: int) -> None:
        """Read from the socket, as far as it is ready. mask: READ, WRITE or both."""
        if mask & READ:
            try:
                data = self.sock.recv(CHUNK)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                self.unix.end(self)
                return
            try:
                self.connection.receive(data)
            except RingCorrupt as error:
                self.unix.say(f"{self.connection.client} closed: {error}")
                self.unix.end(self)
                return
        self.unix.due[self] = None

    def serve(self) -> None:
        """Answer what has come, send what the socket takes, and choose what to wait for."""
        connection = self.connection
        try:
            connection.work()
            while connection.pending():
                connection.drop(self.sock.send(connection.take(CHUNK)))
                connection.work()
        except BlockingIOError:
            pass
        except (OSError, RingCorrupt) as error:
            self.unix.say(f"{connection.client} closed: {error}")
            self.unix.end(self)
            return
        if connection.lost:
            self.unix.say(f"{connection.client} closed: it does not read its watch events")
            self.unix.end(self)
            return
        mask = (0 if connection.stalled() else READ) | (WRITE if connection.pending() else 0)
        self.unix.want(self, mask)


class UnixTransport:
    """The listening socket and its clients, from the start of `with` to its end.

    Args:
        server: the store.
        path: of the socket, see service/sockets.py.

    Raises:
        SocketRefused: at the start of `with`, if the socket cannot be made.
    """

    def __init__(self, server: Xenstored, path: Path | str) -> None:
        self.server = server
        self.path = Path(path)
        self.due: dict[Client, None] = {}
        self.clients: dict[Client, None] = {}
        self._timers: list[tuple[int, int, Client]] = []  # a heap: ns, client's number, client
        self._count = 0

    def __enter__(self) -> UnixTransport:
        self._file = SocketFile(self.path, BACKLOG)
        self._listener = self._file.socket
        self._selector = selectors.DefaultSelector()
        self._near, self._far = socket.socketpair()
        self._far.setblocking(False)
        self.stop_fd = self._far.fileno()  # a byte written here stops run()
        self._selector.register(self._near, READ)
        self._selector.register(self._listener, READ)
        return self

    def __exit__(self, *exception: object) -> None:
        for client in list(self.clients):
            self.end(client)
        self._selector.close()
        self._file.close()
        self._near.close()
        self._far.close()

    def run(self) -> None:
        """Serve until stop() is called by another thread, or a signal writes to stop_fd."""
        stopped = False
        while not stopped:
            timeout = self._expire()
            for key, mask in self._selector.select(0 if self.due else timeout):
                if key.fileobj is self._near:
                    stopped = True
                elif key.fileobj is self._listener:
                    self._accept()
                elif key.data in self.clients:
                    key.data.ready(mask)
            while self.due:
                client, _ = self.due.popitem()
                if client in self.clients:
                    client.serve()

    def stop(self) -> None:
        """End run() soon, or at once when it begins."""
        with contextlib.suppress(OSError):  # it is over, or was asked to stop often before
            self._far.send(b"\0")

    def wake_at(self, client: Client, when: int) -> None:
        """Have a client's connection asked for expired events at a time (ns, monotonic)."""
        heapq.heappush(self._timers, (when, client.number, client))

    def _expire(self) -> float | None:
        """Expire the events that are due. Returns the seconds until the next are, or None."""
        now = time.monotonic_ns()
        while self._timers and self._timers[0][0] <= now:
            _, _, client = heapq.heappop(self._timers)
            client.connection.expire()
        return (self._timers[0][0] - now) / 1e9 if self._timers else None

    def say(self, line: str) -> None:
        """Log a line."""
        self.server.log(line)

    def want(self, client: Client, mask: int) -> None:
        """Wait until a client's socket is ready. mask: READ, WRITE or both, 0 for neither."""
        if mask == client.mask:
            return
        if not mask:
            self._selector.unregister(client.sock)
        elif not client.mask:
            self._selector.register(client.sock, mask, client)
        else:
            self._selector.modify(client.sock, mask, client)
        client.mask = mask

    def end(self, client: Client) -> None:
        """Close a client and drop its watches and transactions."""
        self.want(client, 0)
        del self.clients[client]
        self.due.pop(client, None)
        client.sock.close()
        self.server.disconnect(client.connection)
        with contextlib.suppress(KeyError):  # accept() may have run out of descriptors
            self._selector.register(self._listener, READ)

    def _accept(self) -> None:
        try:
            sock, _ = self._listener.accept()
        except BlockingIOError:
            return
        except OSError as error:
            self.say(f"no more clients for now: {error}")
            self._selector.unregister(self._listener)
            return
        sock.setblocking(False)
        self._count += 1
        client = Client(self, sock, self._count)
        self.clients[client] = None
        self._selector.register(sock, READ, client)
