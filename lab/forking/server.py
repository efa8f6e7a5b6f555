"""Runs `pvdump` commands in dom0 by forking a process that has imported all of pvdump.

Started by lab.python; its client is lab-pvdump. Under emulation Python takes three seconds to start
and import pvdump, a fork a tenth of a second. The rule: a command has the arguments, environment,
folder, standard streams and signals that it would have as a program of its own; only its parent
differs.

A client sends one packet with its three standard streams: its folder, the number of arguments, the
arguments and the environment, each ended by a NUL. It gets a packet with the process's number, and
another with the process's status, as wait(2) gives it, when that has ended. If the client ends
first, for example by SIGKILL, its process is killed.
"""

from __future__ import annotations

import array
import gc
import importlib
import io
import os
import pkgutil
import selectors
import signal
import socket
import sys
import threading
import traceback
from typing import NoReturn

MOST = 1 << 17  # bytes of a request
STREAMS = 3

# Folder, arguments, environment, standard streams.
Request = tuple[str, list[str], dict[str, str], "array.array[int]"]


def load() -> None:
    """Import every module of pvdump that can be imported here."""
    import pvdump

    for found in pkgutil.walk_packages(pvdump.__path__, "pvdump."):
        if not found.name.endswith("__main__"):
            try:
                importlib.import_module(found.name)
            except ImportError as error:
                print(f"not loaded: {found.name}: {error}", file=sys.stderr)
    gc.collect()
    gc.freeze()


def receive(client: socket.socket) -> Request:
    """Receive a client's request.

    Raises:
        OSError: The socket fails.
        ValueError: It is no request of lab-pvdump.
    """
    fds: array.array[int] = array.array("i")
    data, extra, _, _ = client.recvmsg(MOST, socket.CMSG_SPACE(STREAMS * fds.itemsize))
    for level, kind, content in extra:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            fds.frombytes(content)
    if len(fds) != STREAMS:
        raise ValueError("a request without the three standard streams")
    folder, count, *words = [os.fsdecode(word) for word in data.split(b"\0")[:-1]]
    arguments, settings = words[: int(count)], words[int(count) :]
    environment = {name: value for name, _, value in (text.partition("=") for text in settings)}
    return folder, arguments, environment, fds


def work(request: Request) -> NoReturn:
    """Turn this process into the command, run it and exit."""
    folder, arguments, environment, fds = request
    code = 1
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGQUIT, signal.SIG_DFL)
        for stream, fd in enumerate(fds):
            os.dup2(fd, stream)
        os.closerange(STREAMS, 256)
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(environment)
        sys.stdin = io.TextIOWrapper(io.FileIO(0, closefd=False))
        sys.stdout = written(1, "strict")
        sys.stderr = written(2, "backslashreplace")
        sys.argv = ["pvdump", *arguments]
        from pvdump.cli import main

        code = main(arguments)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        threading._shutdown()  # type: ignore[attr-defined]  # waits for threads, as the interpreter does
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def written(fd: int, errors: str) -> io.TextIOWrapper:
    """Return a text stream that writes to a descriptor, buffered as Python's own streams are."""
    raw = io.BufferedWriter(io.FileIO(fd, "w", closefd=False))
    return io.TextIOWrapper(raw, errors=errors, line_buffering=fd == 2 or os.isatty(fd))


class Server:
    """A Server starts a process for each client and sends the client its status.

    Args:
        path: The socket to listen at.
    """

    def __init__(self, path: str) -> None:
        self.processes: dict[int, socket.socket] = {}  # pid -> client
        self.selector = selectors.DefaultSelector()
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        listener.bind(path)
        listener.listen(16)
        self.selector.register(listener, selectors.EVENT_READ, self.accept)
        ended, wake = socket.socketpair()
        for end in (ended, wake):
            end.setblocking(False)
        signal.set_wakeup_fd(wake.fileno())
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        self.wake = wake  # must not be collected
        self.selector.register(ended, selectors.EVENT_READ, self.reap)

    def serve(self) -> NoReturn:
        """Serve clients for ever."""
        while True:
            for key, _ in self.selector.select():
                key.data(key.fileobj)

    def accept(self, listener: socket.socket) -> None:
        """Take a new client's request and start its process."""
        client, _ = listener.accept()
        try:
            request = receive(client)
        except (OSError, ValueError) as error:
            print(f"refused: {error}", file=sys.stderr, flush=True)
            client.close()
            return
        pid = os.fork()
        if pid == 0:
            work(request)
        for fd in request[3]:
            os.close(fd)
        self.processes[pid] = client
        self.selector.register(client, selectors.EVENT_READ, self.gone)
        client.send(b"%d" % pid)

    def gone(self, client: socket.socket) -> None:
        """Kill the process of a client that has ended first."""
        self.selector.unregister(client)
        for pid, other in self.processes.items():
            if other is client:
                os.kill(pid, signal.SIGKILL)

    def reap(self, ended: socket.socket) -> None:
        """Send the status of each process that has ended to its client."""
        ended.recv(4096)
        while self.processes:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            client = self.processes.pop(pid)
            if client.fileno() in self.selector.get_map():
                self.selector.unregister(client)
                client.send(b"%d" % status)
            client.close()


if __name__ == "__main__":
    load()
    Server(sys.argv[1]).serve()
