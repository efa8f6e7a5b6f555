"""NBD servers and networks that fail, limit, refuse or lie."""

import contextlib
import errno
import random
import socket
import struct
import threading

import pytest
from blkback.nbdserver import SEND_FLUSH, NbdServer
from blkback.pieces import buffers, room

from pvdump.blkback import nbd
from pvdump.blkback import nbdhandshake as shake
from pvdump.blkback.nbd import FLUSH, READ, WRITE, Nbd, NbdError
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


@pytest.fixture(autouse=True)
def no_rest(monkeypatch):
    monkeypatch.setattr(nbd, "REST_SECONDS", 0)


@pytest.fixture
def serve(tmp_path):
    servers = []

    def start(**options):
        servers.append(NbdServer(tmp_path / f"socket{len(servers)}", **options))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


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

    @pytest.mark.parametrize(
        ("number", "raises"), [(errno.EIO, OSError), (errno.ENOMEM, Stalled)], ids=["EIO", "ENOMEM"]
    )
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

    @pytest.mark.parametrize(
        ("number", "raises"), [(errno.EIO, OSError), (errno.ENOMEM, Stalled)], ids=["EIO", "ENOMEM"]
    )
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


class TestHandshake:
    @pytest.mark.parametrize("flags", [3, 1])
    def test_a_server_that_does_not_know_the_newest_option_is_asked_the_older_way(
        self, serve, flags
    ):
        server = serve(go=shake.NBD_REP_ERR_UNSUP, flags=flags)
        sink = Nbd(server.address, False)
        sink.write(512, buffers(b"\1" * 512))
        assert server.data[512:1024] == b"\1" * 512
        assert server.options == [shake.NBD_OPT_GO, shake.NBD_OPT_EXPORT_NAME]
        assert sink.size == MIB
        sink.close()

    def test_one_from_before_options_were_answered_is_asked_only_the_older_way(self, serve):
        server = serve(flags=0)
        sink = Nbd(server.address, False)
        sink.read(0, room(512))
        assert server.options == [shake.NBD_OPT_EXPORT_NAME]
        sink.close()

    def test_one_that_is_being_shut_down_is_waited_for(self, serve):
        with pytest.raises(Stalled, match="shut down"):
            Nbd(serve(go=shake.NBD_REP_ERR_SHUTDOWN).address, False)

    def test_an_export_that_is_added_later_is_waited_for(self, serve):
        server = serve(go=shake.NBD_REP_ERR_UNKNOWN)
        for _ in range(2):
            with pytest.raises(Stalled, match="does not have the export"):
                Nbd(server.address, False)
        server.go = None
        Nbd(server.address, False).close()

    def test_one_that_is_added_again_later_is_no_error_of_the_guest_and_one_line(
        self, serve, caplog
    ):
        server = serve()
        sink = Nbd(server.address, False)
        for _ in range(2):
            server.go = shake.NBD_REP_ERR_UNKNOWN
            server.hang_up()
            with pytest.raises(Stalled):
                sink.read(0, room(512))
            caplog.clear()
            for _ in range(3):
                with pytest.raises(Stalled, match="does not have the export"):
                    sink.read(0, room(512))
            assert caplog.messages == [
                f"{server.address}: the server does not have the export; it is tried again"
            ]
            server.go = None
            sink.read(0, room(512))
        sink.close()

    @pytest.mark.parametrize("why", [*range(0x80000002, 0x80000006), 0x80000008, 0x80000009])
    def test_a_refusal_that_does_not_pass_by_itself_is_an_error(self, serve, why):
        server = serve()
        sink = Nbd(server.address, False)
        server.go = why
        with pytest.raises(NbdError, match=f"export refused, 0x{why:x}"):
            Nbd(serve(go=why).address, False)
        server.hang_up()
        with pytest.raises(Stalled):
            sink.read(0, room(512))
        with pytest.raises(NbdError, match=f"export refused, 0x{why:x}"):
            sink.read(0, room(512))
        sink.close()

    def test_an_export_that_is_read_only_is_refused_for_writing(self, serve):
        server = serve(of_export=shake.NBD_FLAG_READ_ONLY)
        with pytest.raises(NbdError, match="--readonly"):
            Nbd(server.address, False)
        Nbd(server.address, True).close()

    def test_one_that_comes_back_smaller_is_refused(self, serve):
        server = serve()
        sink = Nbd(server.address, False)
        del server.data[512:]
        server.hang_up()
        with pytest.raises(Stalled):
            sink.read(0, room(512))
        with pytest.raises(NbdError, match="came back with 512 bytes of 1048576"):
            sink.read(0, room(512))
        sink.close()

    def test_one_that_comes_back_larger_has_its_new_size(self, serve):
        server = serve()
        sink = Nbd(server.address, False)
        server.data += bytes(MIB)
        server.hang_up()
        with pytest.raises(Stalled):
            sink.read(0, room(512))
        sink.read(MIB, room(512))
        assert sink.size == 2 * MIB
        assert [command for command, _, _ in server.asked] == [READ]
        sink.close()


@pytest.mark.parametrize(
    "text",
    [
        *(
            "nbd:",
            "nbd://",
            "nbd:///disk",
            "nbd://host:x/",
            "nbd://host:99999/",
            "nbd+unix:///disk",
        ),
        *("nbd+unix:///?socket=", f"nbd+unix:///?socket=/{'x' * 107}", f"nbd://{'x' * 64}/"),
        *("nbd+unix:///?socket=a&socket=b", "nbd+unix:///?socket=a%00b", "nbd://[::1/"),
    ],
)
def test_an_address_that_is_none_is_refused(text):
    with pytest.raises(NbdError, match="expected"):
        Nbd(text, False)


class Script:
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
            # What the client says of its flags.
            if not connection.recv(4):
                return
            for answer in self.answers:
                if not connection.recv(1 << 16):
                    return
                connection.sendall(answer)
            connection.recv(1 << 16)


GREETING = struct.pack(">QQH", shake.NBDMAGIC, shake.IHAVEOPT, 3)
EXPORT = struct.pack(">QIIIHQH", shake.REPLYMAGIC, 7, shake.NBD_REP_INFO, 12, 0, 4 * MIB, 1 | 4)
ACK = struct.pack(">QIII", shake.REPLYMAGIC, 7, shake.NBD_REP_ACK, 0)


class TestLies:
    def sink(self, tmp_path, greeting, *answers):
        script = Script(tmp_path / "socket", greeting, answers)
        try:
            return Nbd(f"nbd+unix:///?socket={tmp_path}/socket", False), script
        except BaseException:
            script.listener.close()
            script.thread.join()
            raise

    @pytest.mark.parametrize(
        "greeting",
        [
            b"HTTP/1.1 400 Bad Request\r\n\r\n",
            struct.pack(">QQH", shake.NBDMAGIC, 0x420281861253, 3),
        ],
    )
    def test_a_greeting_of_another_kind_is_refused(self, tmp_path, greeting):
        with pytest.raises(NbdError, match="no newstyle"):
            self.sink(tmp_path, greeting)

    def test_an_export_it_refuses_is_said_in_its_words_without_what_harms_a_terminal(
        self, tmp_path
    ):
        refusal = struct.pack(">QIII", shake.REPLYMAGIC, 7, 0x80000002, 5) + b"gone\n"
        with pytest.raises(NbdError, match=r"export refused, 0x80000002 gone\?"):
            self.sink(tmp_path, GREETING, refusal)

    def test_an_export_without_a_size_is_refused(self, tmp_path):
        with pytest.raises(NbdError, match="size"):
            self.sink(tmp_path, GREETING, ACK)

    def test_an_option_reply_that_is_too_long_is_refused(self, tmp_path):
        long = struct.pack(">QIII", shake.REPLYMAGIC, 7, shake.NBD_REP_INFO, 1 << 30)
        with pytest.raises(NbdError, match="no reply"):
            self.sink(tmp_path, GREETING, long)

    @pytest.mark.parametrize("kind", [shake.NBD_INFO_EXPORT, shake.NBD_INFO_BLOCK_SIZE])
    def test_an_information_that_is_too_short_is_refused(self, tmp_path, kind):
        short = struct.pack(">QIIIHB", shake.REPLYMAGIC, 7, shake.NBD_REP_INFO, 3, kind, 0)
        with pytest.raises(NbdError, match="an information of 1 bytes"):
            self.sink(tmp_path, GREETING, short)

    @pytest.mark.parametrize(
        "reply",
        [struct.pack(">IIQ", 1, 0, 1), struct.pack(">IIQ", nbd.REPLY_MAGIC, 0, 99)],
        ids=["magic", "handle"],
    )
    def test_a_reply_to_something_else_loses_the_connection(self, tmp_path, reply):
        sink, script = self.sink(tmp_path, GREETING, EXPORT + ACK, reply)
        with pytest.raises(Stalled):
            sink.flush()
        script.listener.close()
        script.thread.join()


def test_a_write_is_sent_once_where_nothing_is_lost(serve):
    server = serve()
    sink = Nbd(server.address, False)
    sink.write(0, buffers(bytes(8192), 512))
    assert server.asked == [(WRITE, 0, 8192)]
    sink.close()
