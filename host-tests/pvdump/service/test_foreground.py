"""A command in the foreground: what ends it, and what it undoes."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
# A server and a command on its store; begin() is given by each test.
PROGRAM = """
import os, signal, sys, threading, time
from pathlib import Path
from pvdump.service import foreground
from pvdump.xenstored.server import Xenstored
from pvdump.xenstored.unix import UnixTransport

path = Path(sys.argv[1])

def when_waiting(act):
    def run():
        main, before, same = threading.main_thread().ident, None, 0
        while same < 1000:  # looks at which it had not moved
            frame = sys._current_frames()[main]
            now = frame.f_code.co_name, frame.f_lasti
            same = same + 1 if now == before and now[0] == "wait" else 0
            before = now
            time.sleep(0)
        act()
    threading.Thread(target=run).start()

def begin(store, stack):
    stack.callback(print, "undone")
    {begin}

unix, ready = UnixTransport(Xenstored(), path), threading.Event()

def work():
    with unix:
        ready.set()
        unix.run()

server = threading.Thread(target=work)
server.start()
ready.wait()
try:
    code = foreground.serve("test", path, begin)
finally:
    unix.stop()
    server.join()
sys.exit(code)
"""


def run(tmp_path: Path, begin: str) -> subprocess.CompletedProcess[str]:
    program = PROGRAM.format(begin=begin)
    command = [sys.executable, "-c", program, str(tmp_path / "store")]
    # The bound is met by a command that does not end at all.
    return subprocess.run(
        command, check=False, env=ENVIRONMENT, capture_output=True, text=True, timeout=300
    )


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_it_ends_by_a_signal_whichever_thread_takes_it(tmp_path: Path, name: str) -> None:
    number = int(signal.Signals[name])
    done = run(tmp_path, f"when_waiting(lambda: signal.pthread_kill(server.ident, {number}))")
    assert (done.returncode, done.stdout, done.stderr) == (0, "undone\n", "")


def test_it_ends_by_a_signal_that_comes_before_it_waits(tmp_path: Path) -> None:
    done = run(tmp_path, "os.kill(os.getpid(), signal.SIGTERM)")
    assert (done.returncode, done.stdout, done.stderr) == (0, "undone\n", "")


def test_it_ends_with_its_store_and_says_so(tmp_path: Path) -> None:
    done = run(tmp_path, "when_waiting(unix.stop)")
    assert (done.returncode, done.stdout) == (1, "undone\n")
    assert done.stderr.startswith("pvdump test: the store ended: ")
    assert done.stderr.count("\n") == 1


def test_a_logged_name_with_control_characters_stays_in_its_line(tmp_path: Path) -> None:
    logs = r"import logging; logging.error('disk %s failed', 'a\nb\x1b[2J')"
    done = run(tmp_path, f"{logs}; os.kill(os.getpid(), signal.SIGTERM)")
    assert done.stderr == "pvdump test: disk a\\nb\\x1b[2J failed\n"


def test_a_logged_traceback_has_its_own_lines(tmp_path: Path) -> None:
    logs = r"import logging; logging.error('a\nb', exc_info=OSError('gone'))"
    done = run(tmp_path, f"{logs}; os.kill(os.getpid(), signal.SIGTERM)")
    assert done.stderr == "pvdump test: a\\nb\nOSError: gone\n"


def test_signals_do_afterwards_what_they_did_before(tmp_path: Path) -> None:
    begin = "signal.signal(signal.SIGUSR1, lambda *_: None); os.kill(os.getpid(), signal.SIGTERM)"
    program = PROGRAM.format(begin=begin).replace(
        "sys.exit(code)",
        "sys.exit([signal.getsignal(signal.SIGTERM), signal.set_wakeup_fd(-1)]"
        " != [signal.SIG_DFL, -1])",
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "store")],
        check=False,
        env=ENVIRONMENT,
        capture_output=True,
        timeout=300,
    )
    assert done.returncode == 0
