"""NBD servers that know less than the newest option, refuse, or lie."""

import contextlib
import socket
import struct
import threading

import pytest
from blkback.pieces import buffers, room

from pvdump.blkback import nbd
from pvdump.blkback import nbdhandshake as shake
from pvdump.blkback.nbd import READ, WRITE, Nbd, NbdError
from pvdump.blkback.ports import Stalled

KIB, MIB = 1 << 10, 1 << 20
pytestmark = pytest.mark.usefixtures("no_rest")


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
