"""`pvdump watches run`: a command for each event of a pattern, in order within each domain.

The rule: the command is started for what is there at the beginning and after each change, with the
domid, the path and the value in its environment, and no shell sees what a guest wrote. A command
that hangs holds up the commands of its domain; at the end all are ended.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Sequence

from .dispatcher import Dispatcher, Subscription
from .domains import Store
from .pattern import Pattern
from .queue import Event

GRACE = 5.0  # seconds from SIGTERM to SIGKILL


class CommandError(Exception):
    """The command could not be started, or failed."""


class Runner:
    """store: of the dispatcher; command: what to run, a program and its arguments."""

    def __init__(self, store: Store, pattern: Pattern, command: Sequence[str]) -> None:
        self._store = store
        self._pattern = pattern
        self._command = list(command)
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[bytes]] = set()
        self._ended = threading.Event()

    def start(self, dispatcher: Dispatcher) -> None:
        """Begin. Raises XenError."""
        pattern, ready = self._pattern, threading.Event()

        def handle(event: Event) -> None:
            ready.wait()
            self._handle(subscription, event)

        name = self._command[0]
        subscription = dispatcher.subscribe(pattern.base, pattern.domain_of, handle, name)
        ready.set()

    def end(self) -> None:
        """End the commands that run, and start no more."""
        self._ended.set()
        with self._lock:
            running = list(self._running)
        for process in running:
            _signal(process, signal.SIGTERM)
        last = time.monotonic() + GRACE
        for process in running:
            try:
                process.wait(max(last - time.monotonic(), 0))
            except subprocess.TimeoutExpired:
                _signal(process, signal.SIGKILL)

    def _handle(self, subscription: Subscription, event: Event) -> None:
        if event.domain is None:
            # The first event, or everything below may have changed: let each domain's turn come.
            for domid in self._pattern.domids(self._store):
                subscription.look(domid)
        elif event.lost or not self._pattern.matches(event.path):
            for found in self._pattern.find(self._store, event.domain.domid):
                self._run(event.domain.domid, *found)
        else:
            self._run(event.domain.domid, event.path, self._store.find(event.path))

    def _run(self, domid: int, path: str, value: bytes | None) -> None:
        """Run the command and wait for its end. Raises CommandError."""
        environment = {k: v for k, v in os.environb.items() if k != b"PVDUMP_VALUE"}
        environment[b"PVDUMP_DOMID"] = b"%d" % domid
        environment[b"PVDUMP_PATH"] = path.encode()
        if value is not None:
            if b"\0" in value:
                raise CommandError(
                    "not run: the value has a NUL byte, an environment cannot hold it"
                )
            environment[b"PVDUMP_VALUE"] = value
        if self._ended.is_set():
            return
        try:
            # A group of its own, so that whatever it has started can be ended with it.
            process = subprocess.Popen(
                self._command, env=environment, stdin=subprocess.DEVNULL, start_new_session=True
            )
        except OSError as error:
            raise CommandError(f"not run: {error}") from error
        with self._lock:
            self._running.add(process)
        if self._ended.is_set():
            _signal(process, signal.SIGKILL)
        try:
            code = process.wait()
        finally:
            with self._lock:
                self._running.discard(process)
        if code and not self._ended.is_set():
            how = f"exit code {code}" if code > 0 else f"ended by signal {-code}"
            raise CommandError(f"the command failed: {how}")


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """To the command and whatever it has started."""
    with contextlib.suppress(ProcessLookupError):
        if process.poll() is None:
            os.killpg(process.pid, number)
