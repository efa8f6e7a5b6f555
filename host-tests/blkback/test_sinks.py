"""Sinks: sparse files, and NBD as real servers speak it."""

import contextlib
import os
import random
import socket
import struct
import subprocess
import threading

import pytest

from pvdump.blkback import nbd
from pvdump.blkback.nbd import Nbd, NbdError
from pvdump.blkback.ports import Stalled
from pvdump.blkback.sink import behind, open_sink

MIB = 1 << 20


def buffers(data, *sizes):
    """The data in pieces of these sizes, and the rest."""
    found = []
    for size in (*sizes, len(data)):
        found.append(memoryview(bytearray(data[:size])))
        data = data[size:]
    return [buffer for buffer in found if len(buffer)]


def room(*sizes):
    return [memoryview(bytearray(size)) for size in sizes]


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "disk"
    with path.open("wb") as stream:
        stream.truncate(4 * MIB)
    return path


class TestFile:
    def test_what_is_written_in_any_pieces_is_read_in_any_others(self, path):
        sink = open_sink(str(path), False)
        data = random.Random(1).randbytes(100_000)
        sink.write(4096, buffers(data, 1, 512, 70_000))
        into = room(50_000, 2, 49_998)
        sink.read(4096, into)
        assert b"".join(into) == data
        sink.close()

    def test_more_pieces_than_one_call_takes_are_moved(self, path):
        sink = open_sink(str(path), False)
        data = random.Random(1).randbytes(3000 * 512)
        sink.write(0, buffers(data, *[512] * 3000))
        assert path.read_bytes()[: len(data)] == data
        sink.close()

    def test_what_is_discarded_is_a_hole_and_reads_as_zeroes(self, path):
        sink = open_sink(str(path), False)
        sink.write(0, buffers(b"\1" * MIB))
        sink.flush()
        before = path.stat().st_blocks
        sink.discard(0, MIB // 2)
        assert path.stat().st_blocks < before
        assert path.stat().st_size == 4 * MIB
        assert path.read_bytes()[: MIB // 2] == bytes(MIB // 2)
        assert path.read_bytes()[MIB // 2 : MIB] == b"\1" * (MIB // 2)
        sink.close()

    def test_one_that_was_made_shorter_is_an_error(self, path):
        sink = open_sink(str(path), False)
        os.truncate(path, MIB)
        with pytest.raises(OSError, match="shorter"):
            sink.read(2 * MIB, room(512))
        sink.close()

    def test_a_write_protected_one_cannot_be_written(self, path):
        sink = open_sink(str(path), True)
        with pytest.raises(OSError, match="descriptor"):
            sink.write(0, buffers(bytes(512)))
        sink.close()

    def test_one_that_is_not_there_is_an_error(self, tmp_path):
        with pytest.raises(FileNotFoundError):
            open_sink(str(tmp_path / "none"), False)


@pytest.mark.parametrize("done", [0, 1, 3, 4, 9, 10])
def test_what_is_left_behind_a_part_is_all_the_rest(done):
    pieces = [memoryview(b"abc"), memoryview(b"d"), memoryview(b"efghij")]
    assert b"".join(behind(pieces, done)) == b"abcdefghij"[done:]


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
        sink = open_sink(f"nbd+unix:///?socket={server.socket}", False)
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
        with pytest.raises(Stalled):
            sink.read(0, room(512))
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

    def test_more_than_is_kept_is_flushed_unasked(self, sink, server, monkeypatch):
        monkeypatch.setattr(nbd, "KEPT", 8192)
        sink.write(0, buffers(b"\1" * 8192))
        sink.write(8192, buffers(b"\1" * 512))
        lose(sink, server)
        into = room(16384)
        sink.read(0, into)
        assert into[0] == bytes(16384)

    @pytest.mark.parametrize("server", ["caching"], indirect=True)
    def test_what_was_not_flushed_is_at_the_end(self, server):
        sink = open_sink(f"nbd+unix:///?socket={server.socket}", False)
        sink.write(0, buffers(b"\1" * 4096))
        sink.close()
        server.stop()
        assert server.disk.read_bytes()[:4096] == b"\1" * 4096

    def test_an_export_that_is_not_there_is_an_error(self, server):
        with pytest.raises(OSError, match="No such"):
            open_sink(f"nbd+unix:///none?socket={server.socket}.none", False)


class Fake:
    """A server that says what a test wants. answers: bytes, one after each thing it was sent."""

    def __init__(self, path, greeting, answers):
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(path))
        self.listener.listen()
        self.greeting, self.answers = greeting, answers
        self.thread = threading.Thread(target=self.serve)
        self.thread.start()

    def serve(self):
        connection, _ = self.listener.accept()
        with connection, contextlib.suppress(OSError):
            connection.sendall(self.greeting)
            for answer in self.answers:
                if not connection.recv(1 << 16):
                    return
                connection.sendall(answer)
            connection.recv(1 << 16)


GREETING = struct.pack(">QQH", nbd.NBDMAGIC, nbd.IHAVEOPT, 3)
EXPORT = struct.pack(">QIIIHQH", nbd.REPLYMAGIC, 7, nbd.NBD_REP_INFO, 12, 0, 4 * MIB, 1 | 4)
ACK = struct.pack(">QIII", nbd.REPLYMAGIC, 7, nbd.NBD_REP_ACK, 0)


class TestNbdThatLies:
    def sink(self, tmp_path, greeting, *answers):
        fake = Fake(tmp_path / "socket", greeting, answers)
        try:
            return Nbd(f"nbd+unix:///?socket={tmp_path}/socket"), fake
        except BaseException:
            fake.listener.close()
            fake.thread.join()
            raise

    @pytest.mark.parametrize(
        "greeting",
        [b"HTTP/1.1 400 Bad Request\r\n\r\n", struct.pack(">QQH", nbd.NBDMAGIC, 0x420281861253, 3)],
    )
    def test_a_greeting_of_another_kind_is_refused(self, tmp_path, greeting):
        with pytest.raises(NbdError, match="no fixed newstyle"):
            self.sink(tmp_path, greeting)

    def test_an_export_it_refuses_is_said_in_its_words(self, tmp_path):
        refusal = struct.pack(">QIII", nbd.REPLYMAGIC, 7, 0x80000006, 4) + b"gone"
        with pytest.raises(NbdError, match="export refused, 0x80000006 gone"):
            self.sink(tmp_path, GREETING, refusal)

    def test_an_export_without_a_size_is_refused(self, tmp_path):
        with pytest.raises(NbdError, match="size"):
            self.sink(tmp_path, GREETING, ACK)

    def test_an_option_reply_that_is_too_long_is_refused(self, tmp_path):
        long = struct.pack(">QIII", nbd.REPLYMAGIC, 7, nbd.NBD_REP_INFO, 1 << 30)
        with pytest.raises(NbdError, match="no reply"):
            self.sink(tmp_path, GREETING, long)

    @pytest.mark.parametrize(
        "reply",
        [struct.pack(">IIQ", 1, 0, 1), struct.pack(">IIQ", nbd.REPLY_MAGIC, 0, 99)],
        ids=["magic", "handle"],
    )
    def test_a_reply_to_something_else_loses_the_connection(self, tmp_path, reply):
        sink, fake = self.sink(tmp_path, GREETING, EXPORT + ACK, reply)
        with pytest.raises(Stalled):
            sink.flush()
        fake.listener.close()
        fake.thread.join()
