"""One client of the store, as bytes: replies, errors, and the limits of the wire."""

import pytest
from xenstored.clients import HOME, Client, guests_store

from pvdump.xenstored.domain import DOM0
from xenpv import abi
from xenpv.errors import RingCorrupt
from xenpv.xenstore import wire
from xenpv.xenstore.wire import Packet


@pytest.fixture
def server():
    server = guests_store()
    yield server
    assert server.tree.check() == []


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
    assert client.ask(abi.XS_GET_DOMAIN_PATH, b"03\0") == b"/local/domain/3\0"
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
        (abi.XS_READ, b"data/\0", "EINVAL"),
        (abi.XS_READ, b"x" * 2049 + b"\0", "EINVAL"),
        (abi.XS_READ, b"@releaseDomain\0", "EINVAL"),
        (abi.XS_WRITE, b"no-nul", "EINVAL"),
        (abi.XS_WRITE, b"name\0x", "EACCES"),
        (abi.XS_READ, b"secret\0", "EACCES"),
        (abi.XS_READ, b"nothing\0", "ENOENT"),
        (abi.XS_READ, b"/nothing\0", "EACCES"),
        (abi.XS_UNWATCH, b"data\0token\0", "ENOENT"),
        (abi.XS_UNWATCH, b"data\0", "EINVAL"),
        (abi.XS_WATCH, b"data\0t\0-1\0", "EINVAL"),
        (abi.XS_WATCH, b"data\0t\x001\0more\0", "EINVAL"),
        (abi.XS_TRANSACTION_END, b"T\0", "ENOENT"),
        (abi.XS_TRANSACTION_END, b"X\0", "EINVAL"),
        (abi.XS_DIRECTORY_PART, b"data\0", "EINVAL"),
        (abi.XS_DIRECTORY_PART, b"data\0x\0", "EINVAL"),
        (abi.XS_GET_DOMAIN_PATH, b"65536\0", "EINVAL"),
        (abi.XS_GET_DOMAIN_PATH, b"x\0", "EINVAL"),
        (abi.XS_SET_PERMS, b"data\0q1\0", "EINVAL"),
        (abi.XS_SET_PERMS, b"data\0n2\0", "EPERM"),
        (abi.XS_SET_PERMS, b"data\0", "EINVAL"),
        (abi.XS_SET_PERMS, b"@introduceDomain\0n0\0r1\0", "EACCES"),
        (wire.XS_GET_FEATURE, b"1\0", "EACCES"),
        (abi.XS_WATCH_EVENT, b"a\0b\0", "ENOSYS"),
        (abi.XS_ERROR, b"EIO\0", "ENOSYS"),
        (20, b"", "ENOSYS"),
        (0xFFFFFFFF, b"", "ENOSYS"),
    ],
)
def test_a_bad_request_is_answered_with_its_error(client, kind, payload, error):
    assert client.ask(kind, payload) == error


TOOLSTACK = [
    abi.XS_CONTROL,
    abi.XS_INTRODUCE,
    abi.XS_RELEASE,
    abi.XS_IS_DOMAIN_INTRODUCED,
    abi.XS_RESUME,
    abi.XS_SET_TARGET,
    wire.XS_SET_FEATURE,
    wire.XS_GET_QUOTA,
    wire.XS_SET_QUOTA,
]


@pytest.mark.parametrize("kind", TOOLSTACK)
def test_what_is_the_toolstack_s_is_refused_to_a_guest(client, kind):
    assert client.ask(kind, b"1\x002\x003\0") == "EACCES"


@pytest.mark.parametrize("kind", [abi.XS_READ, abi.XS_GET_DOMAIN_PATH, abi.XS_RESET_WATCHES])
def test_an_unknown_transaction_is_enoent_whatever_is_asked_in_it(client, kind):
    assert client.ask(kind, b"1\0", tx_id=9) == "ENOENT"


def test_a_transaction_in_a_transaction_is_ebusy(client):
    number = client.start()
    assert client.ask(abi.XS_TRANSACTION_START, b"\0", number) == "EBUSY"


def test_a_transaction_that_was_ended_is_not_there_any_more(client):
    number = client.start()
    assert client.end(number) == b"OK\0"
    assert client.end(number) == "ENOENT"


def test_a_payload_over_the_limit_ends_the_connection(client):
    with pytest.raises(RingCorrupt):
        client.connection.receive(b"\0" * 12 + b"\x01\x10\0\0")


class TestDirectoryPart:
    def parts(self, client, path, between=lambda: None):
        """The payloads of all chunks, with their generations."""
        chunks, offset, last = [], 0, False
        while not last:
            reply = client.ask(abi.XS_DIRECTORY_PART, f"{path}\0{offset}\0".encode())
            gen, _, rest = reply.partition(b"\0")
            assert len(reply) <= abi.XENSTORE_PAYLOAD_MAX
            last = rest.endswith(b"\0\0") or rest == b"\0"
            chunks.append((int(gen), rest[:-1] if last else rest))
            offset += len(chunks[-1][1])
            between()
        return chunks

    @pytest.mark.parametrize("count", [0, 1, 340, 341, 1000])
    def test_its_chunks_are_the_whole_list(self, server, count):
        dom0 = Client(server, DOM0)
        names = [f"child-{i:05}" for i in range(count)]
        for name in names:
            server.write(f"{HOME}/data/{name}", "")
        chunks = self.parts(dom0, f"{HOME}/data")
        assert b"".join(rest for _, rest in chunks).decode().split("\0")[:-1] == names
        assert len({gen for gen, _ in chunks}) == 1

    def test_the_generation_tells_of_a_change_meanwhile(self, server):
        for i in range(1000):
            server.write(f"{HOME}/data/child-{i:05}", "")
        more = iter(range(10))
        chunks = self.parts(
            Client(server, DOM0),
            f"{HOME}/data",
            lambda: server.write(f"{HOME}/data/more-{next(more)}", ""),
        )
        assert len({gen for gen, _ in chunks}) == len(chunks) > 1

    def test_directory_of_so_many_is_e2big(self, client, server):
        for i in range(500):
            server.write(f"{HOME}/data/child-{i:04}", "")
        assert client.ask(abi.XS_DIRECTORY, b"data\0") == "E2BIG"


class TestFeatures:
    def test_all_of_them_are_offered(self, client):
        assert client.ask(wire.XS_GET_FEATURE, b"") == b"7\0"

    def test_each_can_be_switched_off_for_the_server(self):
        client = Client(guests_store(features=3))
        assert client.ask(wire.XS_GET_FEATURE, b"") == b"3\0"
        assert client.watch("data", depth=1) == "EINVAL"

    def test_the_toolstack_switches_them_for_a_domain_that_is_to_come(self, server):
        dom0 = Client(server, DOM0)
        assert dom0.ask(wire.XS_SET_FEATURE, b"5\x001\0") == b"OK\0"
        assert dom0.ask(wire.XS_GET_FEATURE, b"5\0") == b"1\0"
        client = Client(server, 5)
        assert client.ask(wire.XS_GET_FEATURE, b"") == b"1\0"
        assert dom0.ask(wire.XS_SET_FEATURE, b"5\x003\0") == "EBUSY"
        assert dom0.ask(wire.XS_SET_FEATURE, b"6\x008\0") == "EINVAL"


def test_replies_may_be_shuffled_and_events_stay_in_order(client, server):
    client.watch("data")
    for name in "abc":
        server.write(f"{HOME}/data/{name}", "")
    client.events_since()
    for number in range(10, 16):
        client.connection.receive(Packet(abi.XS_READ, number, 0, b"data\0").encode())
        server.write(f"{HOME}/data/{number}", "")
    client.connection.shuffle(lambda n: 0)
    out = client.output()
    replies = [packet[1] for packet in out if packet[0] == abi.XS_READ]
    assert replies != sorted(replies)
    assert sorted(replies) == list(range(10, 16))
    events = [packet[3] for packet in out if packet[0] == abi.XS_WATCH_EVENT]
    assert events == sorted(events)


def test_a_reply_that_is_half_sent_is_not_shuffled(client):
    for number in (1, 2, 3):
        client.connection.receive(Packet(abi.XS_READ, number, 0, b"data\0").encode())
    client._parser.feed(client.connection.take(7))
    client.connection.drop(7)
    client.connection.shuffle(lambda n: 0)
    assert [packet[1] for packet in client.output()] == [1, 3, 2]


def test_the_number_of_a_transaction_that_ended_is_not_given_again_at_once(client):
    number = client.start()
    assert client.end(number) == b"OK\0"
    assert client.start() != number
