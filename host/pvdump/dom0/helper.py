"""The process of root's behind pvdumpd, and the daemon's end of the connection to it.

Made by command.py, by a fork before the daemon has threads. A request is one message, {"id",
"verb", "arguments"}, and so is its answer, {"id", "value"} or {"id", "error"}. The rules: the
process does the verbs of verbs.py and nothing else; each has a thread, so that a verb that takes
long holds up no other; it ends when the daemon has ended and its verbs are done, and no signal ends
it earlier.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import socket
import sys
import threading
from concurrent.futures import Future
from typing import Any, Callable

from .hypercalls import HypercallError
from .toolstack import XlError
from .verbs import Refused, Verbs

MESSAGE_MAX = 1 << 18  # bytes; a configuration has some thousands
GONE = "pvdumpd's helper has ended"


class HelperError(Exception):
    """A verb failed, or the helper has ended; the message says why."""


def begin(make: Callable[[], Verbs]) -> socket.socket:
    """Fork the process.

    Args:
        make: makes the verbs, in the new process.

    Returns: the daemon's end of the connection.
    """
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    if os.fork():
        its.close()
        return ours
    code = 1
    try:
        ours.close()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        serve(its, make)
        code = 0
    finally:
        sys.stderr.flush()
        os._exit(code)
    raise AssertionError("a forked process went on")


def serve(connection: socket.socket, make: Callable[[], Verbs]) -> None:
    """Do the verbs that are asked for, until the connection ends; its first message is of begin."""
    try:
        verbs = make()
    except (HypercallError, OSError) as error:
        _send(connection, {"id": 0, "error": str(error)})
        return
    _send(connection, {"id": 0, "value": None})
    threads: list[threading.Thread] = []
    while message := connection.recv(MESSAGE_MAX):
        thread = threading.Thread(target=_answer, args=(connection, verbs, message))
        thread.start()
        threads = [each for each in threads if each.is_alive()] + [thread]
    for thread in threads:
        thread.join()


def _answer(connection: socket.socket, verbs: Verbs, message: bytes) -> None:
    request = json.loads(message)
    answer = {"id": request["id"]}
    try:
        answer["value"] = verbs.do(request["verb"], request["arguments"])
    except (Refused, HypercallError, XlError, OSError, TypeError) as error:
        answer["error"] = str(error) or type(error).__name__
    _send(connection, answer)


def _send(connection: socket.socket, message: dict[str, Any]) -> None:
    try:
        connection.send(json.dumps(message).encode())
    except OSError:  # the daemon has ended
        return


class Helper:
    """The daemon's end. Any thread may ask.

    Args:
        connection: of begin().
        on_end: called once, when the process has ended before close().

    Raises: HelperError: the process could not begin; the message says why.
    """

    def __init__(self, connection: socket.socket, on_end: Callable[[], object]) -> None:
        self._connection = connection
        self._on_end = on_end
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()  # of the next two
        self._pending: dict[int, Future[Any]] = {}
        self._over = False
        first = connection.recv(MESSAGE_MAX)
        hello = json.loads(first) if first else {"error": GONE}
        if "error" in hello:
            raise HelperError(hello["error"])
        self._thread = threading.Thread(target=self._read, name="helper", daemon=True)
        self._thread.start()

    def ask(self, verb: str, **arguments: Any) -> Any:
        """Have a verb done. Returns what it returns. Raises HelperError."""
        number, future = next(self._numbers), Future[Any]()
        with self._lock:
            if self._over:
                raise HelperError(GONE)
            self._pending[number] = future
        message = {"id": number, "verb": verb, "arguments": arguments}
        try:
            self._connection.send(json.dumps(message).encode())
        except OSError:
            raise HelperError(GONE) from None
        return future.result()

    def close(self) -> None:
        """End the connection, and with it the process, once its verbs are done."""
        with self._lock:
            closed, self._over = self._over, True
        if not closed:
            self._connection.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._connection.close()

    def _read(self) -> None:
        while message := self._receive():
            answer = json.loads(message)
            with self._lock:
                future = self._pending.pop(answer["id"])
            if "error" in answer:
                future.set_exception(HelperError(answer["error"]))
            else:
                future.set_result(answer["value"])
        with self._lock:
            closed, self._over = self._over, True
            left = list(self._pending.values())
        for future in left:
            future.set_exception(HelperError(GONE))
        if not closed:
            self._on_end()

    def _receive(self) -> bytes:
        try:
            return self._connection.recv(MESSAGE_MAX)
        except OSError:
            return b""
