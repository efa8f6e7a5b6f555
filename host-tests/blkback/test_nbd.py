"""NBD as real servers speak it."""

import random
import socket
import subprocess

import pytest
from blkback.pieces import buffers, room

from pvdump.blkback import nbd
from pvdump.blkback.ports import Stalled
from pvdump.blkback.sink import open_sink

MIB = 1 << 20
pytestmark = pytest.mark.usefixtures("no_rest")


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "disk"
    with path.open("wb") as stream:
        stream.truncate(4 * MIB)
    return path


SERVERS = {
    "nbdkit": "nbdkit --foreground file {disk}",
    "caching": "nbdkit --foreground --filter=cache file {disk}",  # until a flush
    "qemu-nbd": "qemu-nbd --persistent --format=raw --discard=unmap {disk}",
}


class Server:
    """A real server, which ends with these tests.

    Its socket listens before it starts, handed over as systemd does.
    """

    def __init__(self, name, path, disk):
        self.socket, self.disk = path, disk
        command = SERVERS[name].format(disk=disk)
        self.script = f"LISTEN_PID=$$ LISTEN_FDS=1 exec setpriv --pdeathsig KILL {command}"
        self.script += " 3<&0 </dev/null >/dev/null 2>&1"
        self.start()

    def start(self):
        self.socket.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(self.socket))
            listener.listen()
            self.process = subprocess.Popen(["sh", "-c", self.script], stdin=listener)

    def stop(self):
        self.process.kill()
        self.process.wait()


def lose(sink, server):
    """The server dies, with all that the disk was ever given, and is started again."""
    server.stop()
    with pytest.raises(Stalled):
        sink.read(0, room(512))
    server.disk.write_bytes(bytes(4 * MIB))
    server.start()


@pytest.fixture(params=["nbdkit", "qemu-nbd"])
def server(request, path, tmp_path):
    server = Server(request.param, tmp_path / "socket", path)
    yield server
    server.stop()


class TestNbd:
    @pytest.fixture
    def sink(self, server):
        sink = open_sink(f"nbd+unix:///?socket={server.socket}", False, False)
        yield sink
        sink.close()

    def test_it_has_the_exports_size(self, sink):
        assert (sink.size, sink.sector_size) == (4 * MIB, 512)

    def test_what_is_written_in_any_pieces_is_read_in_any_others(self, sink, server):
        data = random.Random(1).randbytes(3 * MIB)
        sink.write(4096, buffers(data, 512, 70_000, *[512] * 1500))
        into = room(50_000, 2, 3 * MIB - 50_002)
        sink.read(4096, into)
        assert b"".join(into) == data
        sink.flush()
        assert server.disk.read_bytes()[4096 : 4096 + len(data)] == data

    def test_what_is_discarded_reads_as_zeroes(self, sink, server):
        sink.write(0, buffers(b"\1" * MIB))
        sink.discard(0, MIB // 2)
        into = room(MIB)
        sink.read(0, into)
        assert b"".join(into) == bytes(MIB // 2) + b"\1" * (MIB // 2)

    def test_beyond_the_end_is_an_error_and_it_goes_on(self, sink):
        with pytest.raises(OSError, match="nbd"):
            sink.read(4 * MIB, room(512))
        sink.read(0, room(512))

    def test_a_server_that_is_started_again_goes_on(self, sink, server):
        sink.write(0, buffers(b"\1" * 4096))
        server.stop()
        for _ in range(2):
            with pytest.raises(Stalled):
                sink.read(0, room(512))
        server.start()
        into = room(512)
        sink.read(0, into)
        assert into[0] == b"\1" * 512

    @pytest.mark.parametrize("server", SERVERS, indirect=True)
    def test_what_a_lost_server_had_not_flushed_is_written_again(self, sink, server):
        sink.write(0, buffers(b"\1" * 8192))
        sink.write(4096, buffers(b"\2" * 8192, 512))
        lose(sink, server)
        into = room(12288)
        sink.read(0, into)
        assert into[0] == b"\1" * 4096 + b"\2" * 8192
        lose(sink, server)
        sink.flush()
        assert server.disk.read_bytes()[:12288] == b"\1" * 4096 + b"\2" * 8192

    def test_what_was_flushed_is_not_written_again(self, sink, server):
        sink.write(0, buffers(b"\1" * 4096))
        sink.flush()
        lose(sink, server)
        into = room(4096)
        sink.read(0, into)
        assert into[0] == bytes(4096)

    def test_what_is_kept_is_flushed_before_it_would_be_too_much(self, sink, server, monkeypatch):
        monkeypatch.setattr(nbd, "KEPT", 8192)
        sink.write(0, buffers(b"\1" * 8192))
        sink.write(8192, buffers(b"\1" * 512))
        lose(sink, server)
        into = room(16384)
        sink.read(0, into)
        assert into[0] == bytes(8192) + b"\1" * 512 + bytes(7680)

    @pytest.mark.parametrize("server", ["caching"], indirect=True)
    def test_what_was_not_flushed_is_at_the_end(self, server):
        sink = open_sink(f"nbd+unix:///?socket={server.socket}", False, False)
        sink.write(0, buffers(b"\1" * 4096))
        sink.close()
        server.stop()
        assert server.disk.read_bytes()[:4096] == b"\1" * 4096

    def test_a_server_that_has_not_been_started_is_waited_for(self, server):
        with pytest.raises(Stalled, match="No such"):
            open_sink(f"nbd+unix:///?socket={server.socket}.none", False, False)
