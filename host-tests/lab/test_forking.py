"""A pvdump command that is a fork of a server sees what a program of its own would see."""

import array
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from pvdump.xenstore.store import Store

SERVER = Path(__file__).resolve().parents[2] / "lab/forking/server.py"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The address of a running server."""
    path = tmp_path_factory.mktemp("server") / "socket"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen([sys.executable, str(SERVER), str(path)], env=environment)
    while not path.exists():
        assert process.poll() is None
    yield str(path)
    process.kill()
    process.wait()


class Client:
    """What lab-pvdump.c does, with pipes for the streams."""

    def __init__(self, address, *arguments, folder="/", environment=("A=b",)):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.connect(address)
        given, self.stdin = os.pipe()
        self.stdout, out = os.pipe()
        self.stderr, error = os.pipe()
        words = [str(folder), str(len(arguments)), *arguments, *environment]
        data = b"".join(os.fsencode(word) + b"\0" for word in words)
        streams = array.array("i", [given, out, error])
        self.socket.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, streams)])
        self.pid = int(self.socket.recv(16))
        for fd in streams:
            os.close(fd)

    def end(self):
        """Wait for the end; gives (exit code, or minus a signal; output; errors)."""
        status = int(self.socket.recv(16))
        texts = [os.fdopen(fd).read() for fd in (self.stdout, self.stderr)]
        os.close(self.stdin)
        return os.waitstatus_to_exitcode(status), *texts


def plain(*arguments, folder="/"):
    """The same by a program of its own."""
    environment = {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", "pvdump", *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["prepare", "new.img", "--size", "32M"],
        ["info", "nothing"],
        ["blkback", "show", "nowhere"],
        ["prepare", "\udcff"],
        ["no-command"],
    ],
)
def test_exit_code_and_output_are_those_of_the_program(server, tmp_path, arguments):
    folders = [tmp_path / name for name in ("one", "two")]
    for folder in folders:
        folder.mkdir()
    if arguments[-1] == "32M":  # its output has a random number
        assert Client(server, *arguments, folder=folders[0]).end()[0] == 0
        assert (folders[0] / "new.img").stat().st_size == 32 << 20
    else:
        forked = Client(server, *arguments, folder=folders[0]).end()
        assert forked == plain(*arguments, folder=folders[1])


@pytest.fixture
def waiting(server, tmp_path):
    """A command that goes on until it is ended."""
    client = Client(server, "xenstored", "--socket", str(tmp_path / "socket"))
    while not (tmp_path / "socket").exists():
        assert Path(f"/proc/{client.pid}").exists(), client.end()
    # It hears signals from before its first answer on.
    with Store(tmp_path / "socket", lambda reason: None) as store:
        store.read_text("/", "")
    return client


@pytest.mark.parametrize(
    ("number", "end"), [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGTERM, 0)]
)
def test_a_signal_is_the_command_s(waiting, number, end):
    os.kill(waiting.pid, number)
    assert waiting.end()[0] == end


def test_a_client_that_is_killed_takes_its_command_along(waiting):
    waiting.socket.close()
    while Path(f"/proc/{waiting.pid}").exists():
        pass
