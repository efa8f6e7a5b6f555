"""The commands of `pvdump watches run`: one for each event of a pattern, in order within a domain.

Rules:
- The command is started for what is there at the beginning and after each change, with the domid,
  the path and the value in its environment. No shell sees what a guest wrote.
- A command that hangs holds up the commands of its own domain only.
- Each command has a process group of its own. All groups of running commands are ended at the end,
  also if this process is killed: see guard.py.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
from collections.abc import Sequence

from . import guard
from .dispatcher import Dispatcher, Subscription
from .domains import Store, value_of
from .pattern import Pattern
from .queue import Event

GRACE = guard.GRACE
log = logging.getLogger(__name__)


class CommandError(Exception):
    """The command could not be started, or failed."""


class Guard:
    """The program guard.py, which ends the commands if this process is killed.

    Raises CommandError if it cannot be started.
    """

    def __init__(self) -> None:
        command = [sys.executable, "-I", "-S", guard.__file__]
        try:
            # In a session of its own, so that what ends this process does not end it.
            self._process = subprocess.Popen(
                command, bufsize=0, stdin=subprocess.PIPE, start_new_session=True
            )
        except OSError as error:
            raise CommandError(f"the guard of commands does not start: {error}") from error
        assert self._process.stdin is not None
        self._input = self._process.stdin
        os.set_blocking(self._input.fileno(), False)
        self._lock = threading.Lock()

    def began(self, group: int) -> None:
        """Name a process group that has begun."""
        self._tell(b"+%d\n" % group)

    def ended(self, group: int) -> None:
        """Name a process group that is over."""
        self._tell(b"-%d\n" % group)

    def close(self) -> None:
        """End it; the commands are ended by now."""
        self._process.kill()
        self._process.wait()
        with self._lock:
            self._input.close()

    def _tell(self, line: bytes) -> None:
        with self._lock:
            if self._input.closed:
                return
            try:
                os.write(self._input.fileno(), line)
            except OSError as error:  # it was killed, or was stopped and its pipe is full
                log.error("the guard is gone, no command would be ended after a kill: %s", error)
                self._input.close()


class Runner:
    """Runs a command for each event.

    Args:
        store: the store of the dispatcher.
        pattern: which nodes.
        command: a program and its arguments.
    """

    def __init__(self, store: Store, pattern: Pattern, command: Sequence[str]) -> None:
        self._store = store
        self._pattern = pattern
        self._command = list(command)
        self._lock = threading.Lock()  # of _running
        self._running: set[int] = set()  # process groups
        self._ended = threading.Event()
        self._guard = Guard()

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
            running = set(self._running)
        guard.end_groups(running, GRACE)
        self._guard.close()

    def _handle(self, subscription: Subscription, event: Event) -> None:
        if event.domain is None:
            # The first event, or everything below may have changed: let each domain's turn come.
            for domid in self._pattern.domids(self._store):
                subscription.look(domid)
        elif event.lost or not self._pattern.matches(event.path):
            self._run_all(event.domain.domid)
        else:
            self._run(event.domain.domid, event.path, value_of(self._store, event.path))

    def _run_all(self, domid: int) -> None:
        """Run the command for every node of a domain; one that fails keeps none from being run."""
        failed = []
        for found in self._pattern.find(self._store, domid):
            try:
                self._run(domid, *found)
            except CommandError as error:
                failed.append(f"{found.path}: {error}")
        if failed:
            more = f"; and {len(failed) - 1} more" if len(failed) > 1 else ""
            raise CommandError(failed[0] + more)

    def _run(self, domid: int, path: str, value: bytes | None) -> None:
        """Run the command and wait for its end. Raises CommandError."""
        process = self._start(self._environment(domid, path, value))
        if process is None:
            return
        code = process.wait()
        with self._lock:
            self._running.discard(process.pid)
        self._guard.ended(process.pid)
        if code and not self._ended.is_set():
            how = f"exit code {code}" if code > 0 else f"ended by signal {-code}"
            raise CommandError(f"the command failed: {how}")

    def _environment(self, domid: int, path: str, value: bytes | None) -> dict[bytes, bytes]:
        environment = {k: v for k, v in os.environb.items() if k != b"PVDUMP_VALUE"}
        environment[b"PVDUMP_DOMID"] = b"%d" % domid
        environment[b"PVDUMP_PATH"] = path.encode()
        if value is not None:
            # An environment holds every byte but NUL.
            environment[b"PVDUMP_VALUE"] = value.replace(b"\0", b"?")
        return environment

    def _start(self, environment: dict[bytes, bytes]) -> subprocess.Popen[bytes] | None:
        """Start the command; None after the end. Raises CommandError."""
        if self._ended.is_set():
            return None
        try:
            process = subprocess.Popen(
                self._command, env=environment, stdin=subprocess.DEVNULL, start_new_session=True
            )
        except OSError as error:
            raise CommandError(f"not run: {error}") from error
        self._guard.began(process.pid)
        with self._lock:
            self._running.add(process.pid)
        if self._ended.is_set():
            guard.end_groups([process.pid], 0)
        return process
