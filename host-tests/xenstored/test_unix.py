"""The unix socket: clients, slow and broken ones, and the socket file."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from xenstored.clients import Client as Guest

from pvdump.xenstored.server import Xenstored
from pvdump.xenstored.unix import UnixTransport
from xenpv import abi
from xenpv.xenstore.wire import Packet, Parser

ROOT = Path(__file__).resolve().parents[2]


@contextlib.contextmanager
def serving(path, **options):
    """A server on a socket, in a thread. Gives the server; its log is a list of lines."""
    server = Xenstored(**options)
    server.lines = []
    server.log = server.lines.append
    with UnixTransport(server, path) as unix:
        thread = threading.Thread(target=unix.run)
        thread.start()
        try:
            yield server
        finally:
            unix.stop()
            thread.join()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "socket"


class Client:
    def __init__(self, path):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(60)
        self.sock.connect(str(path))
        self.parser = Parser()

    def send(self, kind, payload, req_id=1):
        self.sock.sendall(Packet(kind, req_id, 0, payload).encode())

    def next(self):
        """The next packet as (type, req_id, payload), None when the server closed the socket."""
        packet = self.parser.next()
        while packet is None:
            data = self.sock.recv(65536)
            if not data:
                return None
            self.parser.feed(data)
            packet = self.parser.next()
        return packet.type, packet.req_id, packet.payload

    def ask(self, kind, payload):
        self.send(kind, payload)
        return self.next()[2]


def push(sock, data):
    """Send what there is room for now. Returns the number of bytes."""
    try:
        return sock.send(data)
    except BlockingIOError:
        return 0


def test_clients_are_domain_0_and_share_the_tree(path):
    with serving(path):
        one, two = Client(path), Client(path)
        assert one.ask(abi.XS_WRITE, b"/a\0x") == b"OK\0"
        assert two.ask(abi.XS_READ, b"/a\0") == b"x"
        assert one.ask(abi.XS_GET_PERMS, b"/a\0") == b"n0\0"
        assert two.ask(abi.XS_WRITE, b"name\0x") == b"OK\0"
        assert one.ask(abi.XS_READ, b"/local/domain/0/name\0") == b"x"


def test_a_watch_of_one_is_told_of_another_s_write(path):
    with serving(path):
        one, two = Client(path), Client(path)
        one.ask(abi.XS_WATCH, b"/a\0t\0")
        assert one.next() == (abi.XS_WATCH_EVENT, 0, b"/a\0t\0")
        two.ask(abi.XS_WRITE, b"/a/b\0x")
        assert one.next() == (abi.XS_WATCH_EVENT, 0, b"/a/b\0t\0")


def test_a_client_that_goes_takes_its_watches_and_transactions_with_it(path):
    with serving(path) as server:
        one, two = Client(path), Client(path)
        one.ask(abi.XS_WATCH, b"/a\0t\0")
        one.sock.close()
        two.ask(abi.XS_WRITE, b"/a\0x")  # its answer comes after the server saw the other's end
        assert two.ask(abi.XS_READ, b"/a\0") == b"x"
        assert not server.watches._at


def test_a_client_that_breaks_the_protocol_is_closed_and_nobody_else(path):
    with serving(path) as server:
        one, two = Client(path), Client(path)
        one.sock.sendall(b"\xff" * 16)
        assert one.next() is None
        assert two.ask(abi.XS_WRITE, b"/a\0x") == b"OK\0"
        assert "client1 closed: xenstore packet: len 4294967295 is over 4096" in server.lines[0]


def test_a_client_that_does_not_read_its_replies_is_not_read_from(path):
    with serving(path):
        one, two = Client(path), Client(path)
        one.ask(abi.XS_WRITE, b"/a\0" + b"v" * 4000)
        one.sock.setblocking(False)
        request = Packet(abi.XS_READ, 7, 0, b"/a\0").encode()
        sent = idle = 0
        while idle < 3:
            two.ask(abi.XS_READ, b"/a\0")  # the server goes round
            count = push(one.sock, request * 100)
            sent += count
            idle = 0 if count else idle + 1
            assert sent < 4 << 20, "its replies would take 800 MB"
        one.sock.setblocking(True)
        whole = sent // len(request)
        for _ in range(whole):
            assert one.next() == (abi.XS_READ, 7, b"v" * 4000)


def test_a_client_that_does_not_read_its_events_is_closed_in_the_end(path):
    with serving(path) as server:
        one, two = Client(path), Client(path)
        one.ask(abi.XS_WATCH, b"/\0" + b"t" * 3000 + b"\0")
        for i in range(3000):
            two.ask(abi.XS_WRITE, b"/%d\0" % i)
        assert server.lines == ["client1 closed: it does not read its watch events"]


def test_a_client_that_does_not_read_its_events_stalls_a_guest_for_a_while_only(path, monkeypatch):
    monkeypatch.setattr("pvdump.xenstored.connection.EVENT_TIMEOUT", 0)
    with serving(path) as server:
        server.write("/local/domain/1/data", "", "n1")
        guest = Guest(server)
        one, two = Client(path), Client(path)
        one.ask(abi.XS_WATCH, b"/\0" + b"t" * 3000 + b"\0")
        one.next()
        for number in range(300):  # more than its socket takes
            two.ask(abi.XS_WRITE, b"/%d\0" % number)
        # The server's thread sleeps meanwhile: nobody but the guest asks.
        while not guest.connection.stalled():
            guest.ask(abi.XS_WRITE, b"data/%d\0" % guest.req_id)
        two.ask(abi.XS_READ, b"/\0")
        two.ask(abi.XS_READ, b"/\0")  # the server has gone round
        assert guest.connection.outstanding == 0


def test_the_socket_goes_with_the_server(path):
    with serving(path):
        assert path.exists()
    assert not path.exists()


def test_it_may_be_stopped_twice(path):
    with UnixTransport(Xenstored(), path) as unix:
        unix.stop()
        unix.run()
    unix.stop()


class TestCommand:
    @contextlib.contextmanager
    def running(self, path, *options):
        command = [sys.executable, "-m", "pvdump", "xenstored", "--socket", str(path), *options]
        folders = ":".join(str(ROOT / name) for name in ("host", "drivers", "firmware"))
        process = subprocess.Popen(
            command,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": folders},
        )
        try:
            yield process
        finally:
            process.kill()
            process.communicate()

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_it_runs_until_a_signal_and_removes_its_socket(self, path, number):
        with self.running(path) as process:
            assert process.stderr.readline() == f"listening on {path}\n"
            assert Client(path).ask(abi.XS_WRITE, b"/a\0x") == b"OK\0"
            process.send_signal(number)
            assert process.wait() == 0
        assert not path.exists()

    def test_it_ends_by_a_signal_that_another_thread_takes(self, path):
        program = f"""if True:
            import signal, sys, threading, time
            from pvdump.cli import main

            def act():
                waiting = 0  # looks at which the main thread was in select()
                while waiting < 1000:
                    frame = sys._current_frames()[threading.main_thread().ident]
                    waiting = waiting + 1 if frame.f_code.co_name == "select" else 0
                    time.sleep(0)
                signal.pthread_kill(threading.get_ident(), signal.SIGTERM)

            threading.Thread(target=act).start()
            sys.exit(main(["xenstored", "--socket", {str(path)!r}]))
        """
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        # The bound is met by a server that does not end at all.
        done = subprocess.run([sys.executable, "-c", program], env=environment, timeout=300)
        assert done.returncode == 0
        assert not path.exists()

    def test_it_traces_each_packet_in_a_line(self, path):
        with self.running(path, "--trace") as process:
            process.stderr.readline()
            client = Client(path)
            client.ask(abi.XS_WRITE, b"/a\0\x01x\\")
            client.ask(abi.XS_READ, b"/b\0")
            lines = [process.stderr.readline() for _ in range(4)]
        assert lines == [
            "client1 < WRITE req 1 tx 0 /a|\\x01x\\x5c\n",
            "client1 > WRITE req 1 tx 0 OK|\n",
            "client1 < READ req 1 tx 0 /b|\n",
            "client1 > ERROR req 1 tx 0 ENOENT|\n",
        ]

    def test_it_offers_what_it_is_told_to(self, path):
        with self.running(path, "--without", "watchdepth") as process:
            process.stderr.readline()
            client = Client(path)
            assert client.ask(abi.XS_WATCH, b"/a\0t\x001\0") == b"EINVAL\0"

    def test_it_says_in_one_line_why_it_does_not_start(self, path):
        path.write_text("")
        with self.running(path) as process:
            assert process.wait() == 1
            said = process.stderr.read()
        assert said == f"pvdump xenstored: {path} is there and is no socket; name another path\n"
