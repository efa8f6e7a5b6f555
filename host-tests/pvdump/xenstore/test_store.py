"""The xenstore client of host programs, over a real unix socket and over a character device."""

import contextlib
import os
import pty
import socket
import threading
import tty

import pytest

from pvdump.xenstore.selectloop import SelectLoop
from pvdump.xenstore.store import Store
from pvdump.xenstore.stream import StreamTransport, default_path
from pvdump.xenstored.server import Xenstored
from xenpv.errors import RingCorrupt, XenError, XenstoreError
from xenpv.loop import SECOND
from xenpv.xenstore.client import Xenstore


def serve(server, receive, send):
    """Serve one client: receive() gives its bytes, b"" at the end; send() takes bytes."""
    connection = server.connect(0)
    data = receive()
    while data:
        connection.receive(data)
        while connection.pending():
            connection.drop(send(connection.take(4096)))
        data = receive()


class Daemon:
    """A xenstored on a unix socket, one thread a client."""

    def __init__(self, path):
        self.server = Xenstored()
        self.path = path
        self.ends = []
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.listener.bind(str(path))
        self.listener.listen()
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                end, _ = self.listener.accept()
            except OSError:
                return
            self.ends.append(end)
            work = (self.server, lambda end=end: end.recv(4096), end.send)
            threading.Thread(target=serve, args=work, daemon=True).start()

    def hang_up(self):
        for end in self.ends:
            end.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def daemon(tmp_path):
    daemon = Daemon(tmp_path / "socket")
    yield daemon
    daemon.listener.shutdown(socket.SHUT_RDWR)  # wakes who accepts
    daemon.listener.close()
    daemon.hang_up()


def test_the_operations_block_until_they_are_done(daemon):
    with Store(daemon.path) as store:
        store.write("/a/b", "x" * 4000)
        store.mkdir("/a/c")
        assert store.read("/a/b") == b"x" * 4000
        assert store.directory("/a") == ["b", "c"]
        store.set_perms("/a/c", [("n", 3)])
        assert store.get_perms("/a/c") == [("n", 3)]
        store.rm("/a/b")
        assert store.read_text("/a/b", "gone") == "gone"
        with pytest.raises(XenstoreError, match="read /a/b: ENOENT"):
            store.read("/a/b")


def test_many_threads_ask_at_the_same_time(daemon):
    with Store(daemon.path) as store:
        start = threading.Barrier(8)
        found = {}

        def ask(i):
            start.wait()
            for n in range(50):
                store.write(f"/t/{i}/{n}", str(i * n))
            found[i] = [store.read_int(f"/t/{i}/{n}") for n in range(50)]

        threads = [threading.Thread(target=ask, args=(i,)) for i in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert found == {i: [i * n for n in range(50)] for i in range(8)}


def test_a_watch_tells_in_order_and_nothing_after_close(daemon):
    with Store(daemon.path) as store:
        events = []
        handle = store.watch("/a", lambda path, token: events.append(path))
        for name in "xyz":
            store.write(f"/a/{name}", "1")
        handle.close()
        store.write("/a/late", "1")
        assert events == ["/a", "/a/x", "/a/y", "/a/z"]


def test_a_listener_that_fails_is_told_the_next_event_all_the_same(daemon, caplog):
    with Store(daemon.path) as store:
        events = []

        def listen(path, token):
            events.append(path)
            raise KeyError(path)

        handle = store.watch("/a", listen)
        store.write("/a/x", "1")
        handle.close()
    assert events == ["/a", "/a/x"]
    assert "the listener failed on /a/x" in caplog.text


def test_a_transaction_is_done_as_one_change(daemon):
    with Store(daemon.path) as store:

        async def swap(t):
            await t.write("/a", "1")
            await t.write("/b", "2")
            return "done"

        assert store.transact(swap) == "done"
        assert (store.read("/a"), store.read("/b")) == (b"1", b"2")


def test_the_store_s_own_thread_cannot_wait_for_itself(daemon):
    with Store(daemon.path) as store:
        caught = []

        def listen(path, token):
            with pytest.raises(RuntimeError, match="cannot wait for itself"):
                store.read(path)
            caught.append(path)

        store.watch("/a", listen).close()
    assert caught == ["/a"]


def test_a_server_that_hangs_up_ends_what_waits_and_is_told_of_once(daemon):
    reasons = []
    told = threading.Event()

    def on_end(reason):
        reasons.append(reason)
        told.set()

    with Store(daemon.path, on_end) as store:
        store.write("/a", "1")
        daemon.hang_up()
        told.wait()
        with pytest.raises(RingCorrupt, match="the server closed the connection"):
            store.read("/a")
    assert len(reasons) == 1
    with pytest.raises(XenError, match="connection was closed"):
        store.read("/a")


def test_a_client_whose_thread_fails_ends_what_waits_and_says_why(daemon, caplog):
    reasons = []
    told = threading.Event()

    def on_end(reason):
        reasons.append(reason)
        told.set()

    def fail():
        raise ZeroDivisionError("nothing is so")

    with Store(daemon.path, on_end) as store:
        store.loop.call(fail)
        told.wait()
        with pytest.raises(XenError, match="connection was closed"):
            store.read("/a")
    assert reasons == ["ZeroDivisionError: nothing is so"]


@pytest.fixture
def loop():
    loop = SelectLoop()
    yield loop
    loop.close()


def test_a_server_that_hung_up_leaves_the_loop_asleep(daemon, loop, monkeypatch):
    store = Xenstore(loop, StreamTransport(loop, daemon.path))
    blocks = []
    block = loop._block
    monkeypatch.setattr(loop, "_block", lambda until: blocks.append(until) or block(until))

    async def main():
        await store.connect()
        await store.write("/a", "0")  # the server has taken us up
        daemon.hang_up()
        await store.ended()
        blocks.clear()
        await loop.sleep(SECOND // 50)
        assert len(blocks) <= 2
        await store.close()

    loop.run(main())


def test_connecting_again_gives_the_old_descriptor_back(daemon, loop):
    transport = StreamTransport(loop, daemon.path)
    store = Xenstore(loop, transport)

    async def main():
        await store.connect()
        await store.write("/a", "0")  # the server has taken us up
        daemon.hang_up()
        await store.ended()
        await store.connect()
        await store.write("/a", "1")
        assert await store.read("/a") == b"1"
        assert list(loop._descriptors) == [transport._fd]
        await store.close()

    loop.run(main())


def test_without_a_server_it_is_said_where_one_was_looked_for(tmp_path):
    with pytest.raises(XenError, match=r"no xenstore at .*/none: No such file.*XENSTORED_PATH"):
        Store(tmp_path / "none")


def test_the_default_path_is_libxenstore_s(monkeypatch):
    monkeypatch.setenv("XENSTORED_PATH", "/somewhere/else")
    assert str(default_path()) == "/somewhere/else"


class Device(StreamTransport):
    """Notes how many bytes each write to the device had."""

    def __init__(self, loop, path):
        super().__init__(loop, path)
        self.writes = []

    def write(self, data):
        count = super().write(data)
        self.writes.append(count)
        return count


def test_a_device_is_given_one_message_a_write():
    server = Xenstored()
    near, far = pty.openpty()
    tty.setraw(far)
    path = os.ttyname(far)

    def receive():
        with contextlib.suppress(OSError):  # EIO once the other end is closed
            return os.read(near, 4096)
        return b""

    work = (server, receive, lambda data: os.write(near, data))
    threading.Thread(target=serve, args=work, daemon=True).start()
    loop = SelectLoop()
    device = Device(loop, path)

    async def main():
        store = Xenstore(loop, device)
        await store.connect()
        await loop.gather([store.write(f"/n/{i}", "v" * i) for i in range(10)])
        assert len(await store.directory("/n")) == 10
        await store.close()

    loop.run(main())
    loop.close()
    os.close(far)
    whole = [16 + len(f"/n/{i}") + 1 + i for i in range(10)]
    assert [count for count in device.writes if count] == [*whole, 16 + 3]
