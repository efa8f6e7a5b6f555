"""`pvdump watches run`: commands, in order within a domain, with what they need to know.

The commands write into a FIFO that the test reads, and wait on one that it opens.
"""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from watches.fakes import FakeStore

from pvdump.watches.dispatcher import Dispatcher
from pvdump.watches.pattern import Pattern
from pvdump.watches.run import Runner

Make = Callable[..., Dispatcher]
BASE = "/local/domain"
REPORT = 'echo "$PVDUMP_DOMID $PVDUMP_PATH ${PVDUMP_VALUE-gone}" > "$PVDUMP_FIFO"'


class Commands:
    """What commands said; they block until it is read."""

    def __init__(self, fifo: Path) -> None:
        os.mkfifo(fifo)
        self.path = fifo
        # Also for writing, so that no reader ever sees the end.
        self._stream = os.fdopen(os.open(fifo, os.O_RDWR), "r")

    def said(self) -> str:
        return self._stream.readline().rstrip("\n")

    def close(self) -> None:
        self._stream.close()


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Commands]:
    commands = Commands(tmp_path / "fifo")
    monkeypatch.setenv("PVDUMP_FIFO", str(commands.path))
    yield commands
    commands.close()


@pytest.fixture
def run(store: FakeStore, dispatcher: Dispatcher) -> Iterator[Callable[..., Runner]]:
    runners = []

    def run(script: str = REPORT, pattern: str = f"{BASE}/*/data/state") -> Runner:
        runner = Runner(store, Pattern(pattern), ["/bin/sh", "-c", script])
        runners.append(runner)
        runner.start(dispatcher)
        return runner

    yield run
    for runner in runners:
        runner.end()


def write(store: FakeStore, domid: int, value: bytes) -> None:
    path = f"{BASE}/{domid}/data/state"
    store.nodes[path] = value
    store.fire(path, BASE)


def test_command_is_run_after_each_change(
    store: FakeStore, run: Callable[..., Runner], commands: Commands
) -> None:
    run()
    write(store, 7, b"writing")
    assert commands.said() == f"7 {BASE}/7/data/state writing"
    write(store, 7, b"complete")
    assert commands.said() == f"7 {BASE}/7/data/state complete"


def test_command_is_run_for_what_is_there(
    store: FakeStore, run: Callable[..., Runner], commands: Commands
) -> None:
    store.nodes = {f"{BASE}/7/data/state": b"1", f"{BASE}/8/data/other": b"2"}
    run()
    store.fire(BASE)  # the first event, on registration
    assert commands.said() == f"7 {BASE}/7/data/state 1"


def test_node_that_is_gone_has_no_value(
    store: FakeStore,
    run: Callable[..., Runner],
    commands: Commands,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PVDUMP_VALUE", "of somebody else")
    run()
    store.fire(f"{BASE}/7/data/state", BASE)
    assert commands.said() == f"7 {BASE}/7/data/state gone"


def test_event_above_a_node_runs_the_command_for_what_is_below(
    store: FakeStore, run: Callable[..., Runner], commands: Commands
) -> None:
    run()
    store.nodes[f"{BASE}/7/data/state"] = b"1"
    store.fire(f"{BASE}/7", BASE)
    assert commands.said() == f"7 {BASE}/7/data/state 1"


def test_hanging_command_holds_up_its_own_domain_only(
    store: FakeStore, run: Callable[..., Runner], commands: Commands, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    hang = f'echo hangs > "$PVDUMP_FIFO"; read x < {gate}'
    run(f"[ $PVDUMP_VALUE != hang ] || {{ {hang}; }}; {REPORT}")
    write(store, 7, b"hang")
    assert commands.said() == "hangs"
    write(store, 7, b"next")
    write(store, 8, b"other")
    assert commands.said() == f"8 {BASE}/8/data/state other"
    gate.write_text("go\n")
    assert commands.said() == f"7 {BASE}/7/data/state hang"
    assert commands.said() == f"7 {BASE}/7/data/state next"


def test_no_shell_sees_the_value(
    store: FakeStore, run: Callable[..., Runner], commands: Commands
) -> None:
    run()
    write(store, 7, b"$(touch /tmp/x); `id`")
    assert commands.said() == f"7 {BASE}/7/data/state $(touch /tmp/x); `id`"


@pytest.mark.parametrize(
    ("end", "how"),
    [("exit 3", "exit code 3"), ("kill -15 $$", "signal 15"), ("kill -35 $$", "signal 35")],
)
def test_command_that_fails_is_complained_of(
    store: FakeStore,
    run: Callable[..., Runner],
    commands: Commands,
    caplog: pytest.LogCaptureFixture,
    end: str,
    how: str,
) -> None:
    run(f"{REPORT}; $PVDUMP_VALUE; {end}")
    write(store, 7, b"true")
    commands.said()
    write(store, 7, b"exit 0")
    commands.said()
    assert "/bin/sh, domain 7, /local/domain/7/data/state: CommandError" in caplog.text
    assert how in caplog.text


def test_value_that_no_environment_holds_is_complained_of(
    store: FakeStore,
    run: Callable[..., Runner],
    commands: Commands,
    caplog: pytest.LogCaptureFixture,
) -> None:
    run(pattern=f"{BASE}/*/data/*")
    store.nodes = {f"{BASE}/7/data/a": b"x\0y", f"{BASE}/7/data/b": b"z"}
    store.fire(f"{BASE}/7/data/a", BASE)
    store.fire(f"{BASE}/7/data/b", BASE)
    assert commands.said() == f"7 {BASE}/7/data/b z"
    assert "NUL" in caplog.text


def test_end_ends_what_runs_and_what_that_has_started(
    store: FakeStore, run: Callable[..., Runner], commands: Commands, dispatcher: Dispatcher
) -> None:
    child = (
        f"{sys.executable} -c 'import os, signal; print(os.getpid(), flush=True); signal.pause()'"
    )
    runner = run(f'{child} > "$PVDUMP_FIFO" & wait')
    write(store, 7, b"1")
    number = int(commands.said())
    watch = os.pidfd_open(number)
    runner.end()
    dispatcher.close()  # nothing is left that it would wait for
    signalled = subprocess.run(
        [sys.executable, "-c", f"import select; select.select([{watch}], [], [])"], pass_fds=[watch]
    )
    assert signalled.returncode == 0
    os.close(watch)


def test_after_the_end_no_command_is_started(
    store: FakeStore, run: Callable[..., Runner], commands: Commands, dispatcher: Dispatcher
) -> None:
    runner = run("echo no > $PVDUMP_FIFO")
    runner.end()
    write(store, 7, b"1")
    dispatcher.close()
    os.write(os.open(commands.path, os.O_WRONLY | os.O_NONBLOCK), b"nothing before\n")
    assert commands.said() == "nothing before"


def test_command_that_is_started_at_the_end_is_killed(
    store: FakeStore,
    run: Callable[..., Runner],
    dispatcher: Dispatcher,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    os.mkfifo(tmp_path / "gate")
    runner = run(f"read x < {tmp_path / 'gate'}")
    started: queue.SimpleQueue[subprocess.Popen[bytes]] = queue.SimpleQueue()
    start = subprocess.Popen

    def end_as_it_starts(command: list[str], **options: Any) -> subprocess.Popen[bytes]:
        process = start(command, **options)
        runner.end()
        started.put(process)
        return process

    monkeypatch.setattr(subprocess, "Popen", end_as_it_starts)
    write(store, 7, b"1")
    process = started.get()
    dispatcher.close()
    assert process.returncode == -signal.SIGKILL


def test_command_that_ignores_sigterm_is_killed(
    store: FakeStore,
    run: Callable[..., Runner],
    commands: Commands,
    dispatcher: Dispatcher,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("pvdump.watches.run.GRACE", 0.0)
    os.mkfifo(tmp_path / "gate")
    runner = run(f'trap "" TERM; echo "$$" > "$PVDUMP_FIFO"; read x < {tmp_path / "gate"}')
    write(store, 7, b"1")
    assert commands.said().isdigit()
    runner.end()
    dispatcher.close()
    assert dispatcher.status().workers == 0
