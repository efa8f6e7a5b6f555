"""`pvdump watches run`: commands, in order within a domain, with what they need to know.

The commands write into a FIFO that the test reads, and wait on one that it opens.
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from watches.fakes import FakeStore

from pvdump.watches.dispatcher import Dispatcher
from pvdump.watches.pattern import Pattern
from pvdump.watches.run import Runner
from pvdump.xenstored.server import Xenstored
from pvdump.xenstored.unix import UnixTransport

Make = Callable[..., Dispatcher]
BASE = "/local/domain"
REPORT = 'echo "$PVDUMP_DOMID $PVDUMP_PATH ${PVDUMP_VALUE-gone}" > "$PVDUMP_FIFO"'


def sleeper(before: str = "") -> str:
    """A shell's command for a process that says its number and stays.

    before: what it does first, in Python.
    """
    script = f"import os, signal; {before or 0}; print(os.getpid(), flush=True); signal.pause()"
    return f'{sys.executable} -c "{script}" > "$PVDUMP_FIFO"'


IGNORE = "signal.signal(signal.SIGTERM, signal.SIG_IGN)"


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


def test_value_with_a_nul_is_given_with_a_question_mark_for_it(
    store: FakeStore, run: Callable[..., Runner], commands: Commands
) -> None:
    run()
    write(store, 7, b"x\0y\0")
    assert commands.said() == f"7 {BASE}/7/data/state x?y?"


def test_value_may_have_any_other_bytes(
    store: FakeStore, run: Callable[..., Runner], commands: Commands
) -> None:
    value = bytes(byte for byte in range(1, 256) if byte != 10)
    run(
        'printf %s "$PVDUMP_VALUE" | od -An -v -tx1 | tr -d " \\n" > "$PVDUMP_FIFO"; '
        'echo > "$PVDUMP_FIFO"'
    )
    write(store, 7, value)
    assert commands.said() == value.hex()


def test_command_that_fails_for_one_node_is_run_for_the_others(
    store: FakeStore,
    run: Callable[..., Runner],
    commands: Commands,
    caplog: pytest.LogCaptureFixture,
) -> None:
    run(f'{REPORT}; exit "$PVDUMP_VALUE"', pattern=f"{BASE}/*/data/*")
    store.nodes = {f"{BASE}/7/data/{name}": b"3" for name in "abc"}
    store.fire(f"{BASE}/7", BASE)
    assert [commands.said() for _ in range(3)] == [f"7 {BASE}/7/data/{name} 3" for name in "abc"]
    write(store, 7, b"0")  # its turn comes after the complaint
    commands.said()
    assert f"{BASE}/7/data/a: the command failed: exit code 3; and 2 more" in caplog.text


def test_node_that_may_not_be_read_keeps_the_command_from_no_other(
    store: FakeStore, run: Callable[..., Runner], commands: Commands
) -> None:
    run(pattern=f"{BASE}/*/data/*")
    store.nodes = {f"{BASE}/7/data/{name}": b"1" for name in "ab"}
    store.hidden = {f"{BASE}/7/data/a"}
    store.fire(f"{BASE}/7", BASE)
    assert commands.said() == f"7 {BASE}/7/data/b 1"


def test_command_that_cannot_be_executed_is_complained_of(
    store: FakeStore,
    dispatcher: Dispatcher,
    run: Callable[..., Runner],
    commands: Commands,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
) -> None:
    program = tmp_path / "program"
    program.write_bytes(b"\x7fELF but no more")
    program.chmod(0o755)
    runner = Runner(store, Pattern(f"{BASE}/*/data/state"), [str(program)])
    runner.start(dispatcher)
    write(store, 7, b"1")
    run()
    write(store, 7, b"2")
    commands.said()
    runner.end()
    assert "not run: [Errno 8] Exec format error" in caplog.text


def test_command_has_no_descriptors_but_the_three(
    store: FakeStore, run: Callable[..., Runner], commands: Commands
) -> None:
    run('ls /proc/self/fd | tr "\\n" " " > "$PVDUMP_FIFO"; echo > "$PVDUMP_FIFO"')
    with Path(os.devnull).open() as leak:
        os.set_inheritable(leak.fileno(), True)
        write(store, 7, b"1")
        # 3 is of ls itself.
        assert commands.said().split() == ["0", "1", "2", "3"]


def test_end_ends_what_runs_and_what_that_has_started(
    store: FakeStore, run: Callable[..., Runner], commands: Commands, dispatcher: Dispatcher
) -> None:
    runner = run(f"{sleeper()} & wait")
    write(store, 7, b"1")
    watch = os.pidfd_open(int(commands.said()))
    runner.end()
    dispatcher.close()  # nothing is left that it would wait for
    assert gone(watch)


def gone(watch: int) -> bool:
    """Whether the process of a pidfd is gone; waits for it."""
    script = f"import select; select.select([{watch}], [], [])"
    done = subprocess.run([sys.executable, "-c", script], pass_fds=[watch])
    os.close(watch)
    return done.returncode == 0


def until_gone(number: int) -> None:
    """Wait until there is no process of this number."""
    with contextlib.suppress(ProcessLookupError):
        while True:
            os.kill(number, 0)


def test_what_a_command_has_started_is_killed_though_it_ignores_sigterm(
    store: FakeStore,
    run: Callable[..., Runner],
    commands: Commands,
    dispatcher: Dispatcher,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    runner = run(f'echo "$$" > "$PVDUMP_FIFO"; {sleeper(IGNORE)} & wait')
    write(store, 7, b"1")
    shell, child = int(commands.said()), int(commands.said())
    watch = os.pidfd_open(child)
    times = iter((0.0, 0.0, 1e9))
    clock = SimpleNamespace(monotonic=lambda: next(times), sleep=lambda _: until_gone(shell))
    monkeypatch.setattr("pvdump.watches.guard.time", clock)
    runner.end()
    dispatcher.close()
    assert gone(watch)


def test_end_comes_as_soon_as_all_have_ended(
    store: FakeStore,
    run: Callable[..., Runner],
    commands: Commands,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("pvdump.watches.run.GRACE", 1e9)
    runner = run('echo > "$PVDUMP_FIFO"; sleep 1000000 & wait')
    write(store, 7, b"1")
    commands.said()
    runner.end()


def test_commands_end_if_their_parent_is_killed(tmp_path: Path, commands: Commands) -> None:
    socket = tmp_path / "store"
    pattern = f"{BASE}/*/data/state"
    server = Xenstored()
    server.write(f"{BASE}/7/data/state", "1")
    with UnixTransport(server, socket) as unix:
        thread = threading.Thread(target=unix.run)
        thread.start()
        arguments = ["watches", "run", "--store", str(socket), pattern, "--", "/bin/sh", "-c"]
        parent = subprocess.Popen(
            [sys.executable, "-m", "pvdump", *arguments, f"{sleeper()} & wait"],
            env={**os.environ, "PYTHONPATH": ":".join(sys.path)},
        )
        watch = os.pidfd_open(int(commands.said()))
        parent.kill()
        parent.wait()
        assert gone(watch)
        unix.stop()
        thread.join()


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
    assert process.returncode in (-signal.SIGTERM, -signal.SIGKILL)


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
