"""One client of the store, as bytes: replies, watches, and the limits of the wire."""

import pytest

from pvdump.xenstored.server import Xenstored
from xenpv import abi
from xenpv.errors import RingCorrupt
from xenpv.xs_wire import Packet, Parser

HOME = "/local/domain/1"


@pytest.fixture
def server():
    server = Xenstored()
    server.write(HOME, "", "n0 r1")
    server.write(f"{HOME}/data", "", "n1")
    server.write(f"{HOME}/secret", "", "n0")
    return server


class Client:
    def __init__(self, server, domid=1):
        self.connection = server.connect(domid)
        self._parser = Parser()

    def output(self):
        """All that the server has sent, as (type, req_id, tx_id, payload)."""
        while self.connection.pending():
            data = self.connection.take(7)
            self._parser.feed(data)
            self.connection.drop(len(data))
        packets = []
        packet = self._parser.next()
        while packet is not None:
            packets.append((packet.type, packet.req_id, packet.tx_id, packet.payload))
            packet = self._parser.next()
        return packets

    def ask(self, kind, payload, tx_id=0):
        """Send a request. Returns the payload of its reply, or the error's name."""
        self.connection.receive(Packet(kind, 5, tx_id, payload).encode())
        packets = self.output()
        (got, req_id, tx, answer) = next(p for p in packets if p[0] != abi.XS_WATCH_EVENT)
        assert (req_id, tx) == (5, tx_id)
        if got == abi.XS_ERROR:
            return answer.rstrip(b"\0").decode()
        assert got == kind
        self.events = [p[3] for p in packets if p[0] == abi.XS_WATCH_EVENT]
        return answer


@pytest.fixture
def client(server):
    return Client(server)


def test_the_operations_round_trip(client):
    assert client.ask(abi.XS_WRITE, b"data/a\0value") == b"OK\0"
    assert client.ask(abi.XS_READ, b"data/a\0") == b"value"
    assert client.ask(abi.XS_READ, b"/local/domain/1/data/a\0") == b"value"
    assert client.ask(abi.XS_MKDIR, b"data/b\0") == b"OK\0"
    assert client.ask(abi.XS_DIRECTORY, b"data\0") == b"a\0b\0"
    assert client.ask(abi.XS_RM, b"data/a\0") == b"OK\0"
    assert client.ask(abi.XS_READ, b"data/a\0") == "ENOENT"
    assert client.ask(abi.XS_GET_DOMAIN_PATH, b"3\0") == b"/local/domain/3\0"
    assert client.ask(abi.XS_GET_PERMS, b"data/b\0") == b"n1\0"
    assert client.ask(abi.XS_SET_PERMS, b"data/b\0n1\0r2\0") == b"OK\0"
    assert client.ask(abi.XS_GET_PERMS, b"data/b\0") == b"n1\0r2\0"


def test_a_value_may_hold_any_bytes(client):
    client.ask(abi.XS_WRITE, b"data/a\0" + bytes(range(256)))
    assert client.ask(abi.XS_READ, b"data/a\0") == bytes(range(256))


@pytest.mark.parametrize("size", [1, 3, 16])
def test_a_request_may_come_in_pieces(client, size):
    data = Packet(abi.XS_WRITE, 1, 0, b"data/a\0value").encode() * 2
    for i in range(0, len(data), size):
        client.connection.receive(data[i : i + size])
    assert client.output() == [(abi.XS_WRITE, 1, 0, b"OK\0")] * 2


@pytest.mark.parametrize(
    ("kind", "payload", "error"),
    [
        (abi.XS_READ, b"", "EINVAL"),
        (abi.XS_READ, b"data", "EINVAL"),
        (abi.XS_READ, b"data\0more\0", "EINVAL"),
        (abi.XS_READ, b"da\xffta\0", "EINVAL"),
        (abi.XS_READ, b"x" * 2049 + b"\0", "EINVAL"),
        (abi.XS_WRITE, b"no-nul", "EINVAL"),
        (abi.XS_WRITE, b"name\0x", "EACCES"),
        (abi.XS_READ, b"secret\0", "EACCES"),
        (abi.XS_UNWATCH, b"data\0token\0", "ENOENT"),
        (abi.XS_TRANSACTION_END, b"T\0", "ENOENT"),
        (abi.XS_INTRODUCE, b"1\02\03\0", "EACCES"),
        (abi.XS_SET_PERMS, b"data\0q1\0", "EINVAL"),
        (20, b"", "ENOSYS"),
    ],
)
def test_a_bad_request_is_answered_with_its_error(client, kind, payload, error):
    assert client.ask(kind, payload) == error


def test_a_payload_over_the_limit_ends_the_connection(client):
    with pytest.raises(RingCorrupt):
        client.connection.receive(b"\0" * 12 + b"\x01\x10\0\0")


def test_a_directory_that_does_not_fit_is_e2big(client, server):
    for i in range(500):
        server.write(f"{HOME}/data/child-{i:04}", "")
    assert client.ask(abi.XS_DIRECTORY, b"data\0") == "E2BIG"


class TestWatch:
    def watch(self, client, path, token=b"t"):
        answer = client.ask(abi.XS_WATCH, path + b"\0" + token + b"\0")
        return answer, client.events if answer == b"OK\0" else []

    def events(self, client):
        return [packet[3] for packet in client.output()]

    def test_it_fires_once_when_it_is_set(self, client):
        assert self.watch(client, b"data/x") == (b"OK\0", [b"data/x\0t\0"])

    def test_it_fires_for_changes_at_and_below_in_the_words_it_was_set_in(self, client, server):
        self.watch(client, b"data")
        self.watch(client, b"/local/domain/1/data", b"abs")
        server.write(f"{HOME}/data", "")
        server.write(f"{HOME}/data/a/b", "")
        server.write(f"{HOME}/database", "")
        assert self.events(client) == [
            b"data\0t\0",
            b"/local/domain/1/data\0abs\0",
            b"data/a/b\0t\0",
            b"/local/domain/1/data/a/b\0abs\0",
        ]

    def test_it_fires_with_its_own_path_when_a_parent_is_removed(self, client, server):
        server.write(f"{HOME}/data/a/b", "")
        self.watch(client, b"data/a/b")
        self.watch(client, b"data/a/none")
        server.rm(f"{HOME}/data/a")
        assert self.events(client) == [b"data/a/b\0t\0"]

    def test_it_is_silent_about_what_its_owner_may_not_read(self, client, server):
        self.watch(client, b"secret")
        server.write(f"{HOME}/secret/x", "")
        assert self.events(client) == []

    def test_the_same_one_twice_is_eexist_and_unwatch_ends_it(self, client, server):
        self.watch(client, b"data")
        assert self.watch(client, b"data")[0] == "EEXIST"
        assert client.ask(abi.XS_UNWATCH, b"data\0t\0") == b"OK\0"
        server.write(f"{HOME}/data/a", "")
        assert self.events(client) == []

    def test_reset_watches_ends_watches_and_transactions(self, client, server):
        self.watch(client, b"data")
        number = int(client.ask(abi.XS_TRANSACTION_START, b"\0")[:-1])
        assert client.ask(abi.XS_RESET_WATCHES, b"\0") == b"OK\0"
        server.write(f"{HOME}/data/a", "")
        assert self.events(client) == []
        assert client.ask(abi.XS_READ, b"data/a\0", number) == "ENOENT"

    def test_it_fires_at_commit_and_not_before(self, client):
        self.watch(client, b"data")
        number = int(client.ask(abi.XS_TRANSACTION_START, b"\0")[:-1])
        client.ask(abi.XS_WRITE, b"data/a\0x", number)
        assert client.events == []
        client.ask(abi.XS_TRANSACTION_END, b"T\0", number)
        assert client.events == [b"data/a\0t\0"]

    def test_nothing_fires_for_a_transaction_that_is_dropped(self, client):
        self.watch(client, b"data")
        number = int(client.ask(abi.XS_TRANSACTION_START, b"\0")[:-1])
        client.ask(abi.XS_WRITE, b"data/a\0x", number)
        client.ask(abi.XS_TRANSACTION_END, b"F\0", number)
        assert client.events == []
        assert client.ask(abi.XS_READ, b"data/a\0") == "ENOENT"
