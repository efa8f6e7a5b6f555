"""NBD servers and networks that fail or limit, and what is kept for a server that comes back."""

import errno
import random
import socket

import pytest
from blkback.nbdserver import SEND_FLUSH
from blkback.pieces import buffers, room

from pvdump.blkback import nbd
from pvdump.blkback.nbd import FLUSH, WRITE, Nbd, NbdError
from pvdump.blkback.ports import Stalled

KIB, MIB = 1 << 10, 1 << 20
NETWORK = [
    OSError(errno.EHOSTUNREACH, "No route to host"),
    OSError(errno.ENETUNREACH, "Network is unreachable"),
    OSError(errno.ENETDOWN, "Network is down"),
    OSError(errno.ECONNREFUSED, "Connection refused"),
    OSError(errno.ECONNRESET, "Connection reset by peer"),
    OSError(errno.EPIPE, "Broken pipe"),
    OSError(errno.ETIMEDOUT, "Connection timed out"),
    OSError(errno.EADDRNOTAVAIL, "Cannot assign requested address"),
    OSError(errno.EMFILE, "Too many open files"),
    OSError(errno.ENOBUFS, "No buffer space available"),
    socket.gaierror(socket.EAI_NONAME, "Name or service not known"),
    socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution"),
    TimeoutError("timed out"),
]
each_error = pytest.mark.parametrize(
    ("number", "raises"), [(errno.EIO, OSError), (errno.ENOMEM, Stalled)], ids=["EIO", "ENOMEM"]
)
pytestmark = pytest.mark.usefixtures("no_rest")


class TestNetwork:
    @pytest.mark.parametrize("error", NETWORK, ids=str)
    def test_a_server_that_cannot_be_reached_is_waited_for(self, monkeypatch, error):
        def refuse(where, timeout):
            raise error

        monkeypatch.setattr(socket, "create_connection", refuse)
        with pytest.raises(Stalled) as caught:
            Nbd("nbd://host/disk", False)
        # Whoever opens it names it.
        assert "nbd://" not in str(caught.value)
        assert error.strerror is None or error.strerror in str(caught.value)

    @pytest.mark.parametrize("error", NETWORK, ids=str)
    def test_one_that_cannot_be_reached_any_more_is_no_error_of_the_guest(
        self, serve, monkeypatch, error
    ):
        server = serve()
        sink = Nbd(server.address, False)
        connect = socket.socket.connect

        def refuse(*args):
            raise error

        server.hang_up()
        with monkeypatch.context() as patch:
            patch.setattr(socket, "socket", refuse)
            for _ in range(3):
                with pytest.raises(Stalled) as caught:
                    sink.read(0, room(512))
                assert str(caught.value).count(server.address) == 1
        assert socket.socket.connect is connect
        sink.read(0, room(512))
        sink.close()

    def test_a_server_that_is_being_shut_down_is_asked_again(self, serve):
        server = serve()
        sink = Nbd(server.address, False)
        server.errors = [errno.ESHUTDOWN]
        with pytest.raises(Stalled, match="shut down"):
            sink.write(0, buffers(b"\1" * 512))
        sink.write(0, buffers(b"\1" * 512))
        assert server.data[:512] == b"\1" * 512
        assert len(server.options) == 2
        sink.close()

    def test_one_that_is_short_of_memory_is_asked_again(self, serve):
        server = serve()
        sink = Nbd(server.address, False)
        server.errors = [errno.ENOMEM]
        with pytest.raises(Stalled, match="memory"):
            sink.read(0, room(512))
        sink.read(0, room(512))
        sink.close()

    @pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EPERM, errno.EINVAL])
    def test_what_the_server_cannot_do_is_an_error(self, serve, number):
        server = serve()
        sink = Nbd(server.address, False)
        server.errors = [number]
        with pytest.raises(OSError) as caught:
            sink.write(0, buffers(bytes(512)))
        assert caught.value.errno == number
        assert str(caught.value).count(server.address) == 1
        sink.close()

    def test_a_server_that_is_away_is_looked_for_after_a_rest(self, serve, monkeypatch):
        now = [100.0]
        monkeypatch.setattr(nbd, "REST_SECONDS", 0.5)
        monkeypatch.setattr(nbd.time, "monotonic", lambda: now[0])
        server = serve()
        sink = Nbd(server.address, False)
        server.hang_up()
        with pytest.raises(Stalled):
            sink.read(0, room(512))
        tries = []
        connect = Nbd._connect

        def failing(self, before):
            tries.append(now[0])
            raise Stalled("away")

        monkeypatch.setattr(Nbd, "_connect", failing)
        for _ in range(100):
            with pytest.raises(Stalled):
                sink.read(0, room(512))
            now[0] += 0.01
        assert len(tries) == 2
        monkeypatch.setattr(Nbd, "_connect", connect)
        now[0] += 0.5
        sink.read(0, room(512))
        sink.close()


class TestKept:
    """What the server has not flushed is kept within bounds."""

    @pytest.fixture
    def server(self, serve, monkeypatch):
        monkeypatch.setattr(nbd, "KEPT", 4096)
        return serve(sizes=(512, 4096, 2048), of_export=SEND_FLUSH)

    def kept(self, sink):
        return [(offset, len(data)) for offset, data in sink._kept]

    def test_a_flush_comes_before_the_write_that_would_be_too_much(self, server):
        sink = Nbd(server.address, False)
        for offset in (0, 2048, 4096):
            sink.write(offset, buffers(bytes(2048)))
        assert [command for command, _, _ in server.asked] == [WRITE, WRITE, FLUSH, WRITE]
        assert self.kept(sink) == [(4096, 2048)]
        sink.close()

    @each_error
    def test_no_more_is_kept_and_nothing_sent_where_flushes_fail(self, server, number, raises):
        sink = Nbd(server.address, False)
        sink.write(0, buffers(bytes(4096)))
        server.errors = [number] * 3
        for _ in range(3):
            with pytest.raises(raises):
                sink.write(8192, buffers(bytes(2048)))
        assert self.kept(sink) == [(0, 4096)]
        assert [command for command, _, _ in server.asked[2:]] == [FLUSH] * 3
        sink.write(8192, buffers(bytes(2048)))
        assert self.kept(sink) == [(8192, 2048)]
        sink.close()

    @each_error
    def test_a_write_that_is_asked_again_is_kept_once(self, server, number, raises):
        sink = Nbd(server.address, False)
        server.errors = [None, number]
        with pytest.raises(raises):
            sink.write(0, buffers(bytes(4096)))
        sink.write(0, buffers(bytes(4096)))
        assert self.kept(sink) == [(0, 4096)]
        sink.close()

    def test_a_server_that_came_back_without_a_cache_is_not_asked_to_flush(self, server):
        sink = Nbd(server.address, False)
        sink.write(0, buffers(bytes(512)))
        server.of_export = 0
        server.hang_up()
        with pytest.raises(Stalled):
            sink.flush()
        sink.flush()
        assert [command for command, _, _ in server.asked] == [WRITE, WRITE]
        assert self.kept(sink) == []
        sink.close()

    def test_it_is_dropped_when_a_server_without_a_cache_has_it(self, server):
        sink = Nbd(server.address, False)
        sink.write(0, buffers(b"\1" * 512))
        server.of_export = 0
        for _ in range(2):
            server.hang_up()
            with pytest.raises(Stalled):
                sink.read(0, room(512))
            sink.write(0, buffers(b"\2" * 512))
            assert server.data[:512] == b"\2" * 512
        server.hang_up()
        with pytest.raises(Stalled):
            sink.read(0, room(512))
        sink.read(0, room(512))
        assert server.data[:512] == b"\2" * 512
        sink.close()


class TestBlockSizes:
    @pytest.mark.parametrize("most", [64 * KIB, 96 * KIB, 512, 1 << 25])
    def test_no_request_is_larger_than_the_server_takes(self, serve, most):
        server = serve(sizes=(512, 4096, most))
        sink = Nbd(server.address, False)
        data = random.Random(1).randbytes(MIB // 2)
        sink.write(0, buffers(data, 4096, 70_144))
        into = room(*[4096] * 128)
        sink.read(0, into)
        assert b"".join(into) == data
        assert max(length for _, _, length in server.asked) <= most
        sink.close()

    def test_what_was_lost_is_written_again_within_the_sizes_of_the_server_that_came_back(
        self, serve
    ):
        server = serve(sizes=(512, 4096, MIB), of_export=SEND_FLUSH)
        sink = Nbd(server.address, False)
        data = random.Random(1).randbytes(MIB // 2)
        sink.write(0, buffers(data))
        server.hang_up()
        server.data[:] = bytes(len(server.data))
        server.sizes = (512, 4096, 64 * KIB)
        with pytest.raises(Stalled):
            sink.read(0, room(512))
        sink.read(0, room(512))
        assert server.data[: len(data)] == data
        sink.close()

    def test_a_request_after_a_reconnect_is_within_the_sizes_of_the_server_that_came_back(
        self, serve
    ):
        server = serve(sizes=(512, 4096, MIB))
        sink = Nbd(server.address, False)
        for most, move in ((64 * KIB, sink.write), (32 * KIB, sink.read)):
            server.hang_up()
            server.sizes = (512, 4096, most)
            with pytest.raises(Stalled):
                sink.read(0, room(512))
            move(0, room(MIB // 2))
            assert server.asked[-1][2] == most
        sink.close()

    def test_the_least_size_is_the_sector_size_of_the_disk(self, serve):
        sink = Nbd(serve(sizes=(4096, 4096, MIB)).address, False)
        assert (sink.sector_size, sink.physical) == (4096, 4096)
        sink.close()

    @pytest.mark.parametrize(("preferred", "physical"), [(512, 512), (4096, 4096), (65536, 4096)])
    def test_the_preferred_size_is_the_physical_sector_size(self, serve, preferred, physical):
        sink = Nbd(serve(sizes=(1, preferred, MIB)).address, False)
        assert (sink.sector_size, sink.physical) == (512, physical)
        sink.close()

    @pytest.mark.parametrize(
        "sizes", [(8192, 8192, MIB), (3000, 4096, MIB), (4096, 4096, 512), (512, 512, 0)]
    )
    def test_sizes_that_cannot_be_kept_are_refused(self, serve, sizes):
        with pytest.raises(NbdError, match="blocks of"):
            Nbd(serve(sizes=sizes).address, False)

    def test_a_server_that_comes_back_with_larger_blocks_is_refused(self, serve):
        server = serve(sizes=(512, 4096, MIB))
        sink = Nbd(server.address, False)
        server.sizes = (4096, 4096, MIB)
        server.hang_up()
        with pytest.raises(Stalled):
            sink.read(0, room(512))
        with pytest.raises(NbdError, match="blocks of 4096 bytes, not of 512") as caught:
            sink.read(0, room(512))
        assert str(caught.value).count(server.address) == 1
        sink.close()
