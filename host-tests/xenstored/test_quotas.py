"""Quotas: each limit with its error, for guests only."""

import pytest
from xenstored.clients import HOME, Client, guests_store

from pvdump.xenstored.domain import DOM0, QUOTAS
from xenpv import abi
from xenpv.xenstore import wire

FEW = 5


def limited(name, value=FEW):
    return Client(guests_store(quotas={name: value}))


def fill(act):
    """Do it until it is refused. Returns how often it was not, and the error."""
    for count in range(10_000):
        reply = act(count)
        if isinstance(reply, str):
            return count, reply
    raise AssertionError("never refused")


def test_the_defaults_are_c_xenstored_s():
    assert {name: quota.default for name, quota in QUOTAS.items()} == {
        "nodes": 1000,
        "watches": 128,
        "outstanding": 20,
        "transactions": 10,
        "transaction-nodes": 1024,
        "node-permissions": 5,
        "path-max": 2048,
        "node-size": 2048,
    }


def test_nodes():
    client = limited("nodes")  # it owns one already: data
    assert fill(lambda i: client.write(f"data/{i}")) == (FEW - 1, "ENOSPC")
    client.rm("data/0")
    assert client.write("data/again") == b"OK\0"
    assert client.write("data/a/b") == "ENOSPC"


def test_nodes_made_in_transactions_count_together():
    client = limited("nodes")
    one, two = client.start(), client.start()
    for number in (one, two):
        for i in range(3):
            assert client.write(f"data/{number}-{i}", "", number) == b"OK\0"
    assert client.end(one) == b"OK\0"
    assert client.end(two) == "ENOSPC"


def test_watches():
    client = limited("watches")
    assert fill(lambda i: client.watch(f"data/{i}")) == (FEW, "E2BIG")


def test_transactions():
    client = limited("transactions")
    assert fill(lambda i: client.ask(abi.XS_TRANSACTION_START, b"\0")) == (FEW, "ENOSPC")


def test_nodes_of_a_transaction_and_it_cannot_commit_any_more():
    client = limited("transaction-nodes")
    for name in (*range(FEW), "more"):
        client.connection.server.write(f"{HOME}/data/{name}", "", "n1")
    number = client.start()
    for i in range(FEW):
        assert client.read(f"data/{i}", number) == b""
    assert client.read("data/more", number) == "ENOSPC"
    assert client.read("data/0", number) == b""
    assert client.end(number) == "ENOMEM"


def test_permissions_of_a_node():
    client = limited("node-permissions")
    words = [b"n1"] + [b"r%d" % i for i in range(2, 2 + FEW)]
    perms = b"".join(word + b"\0" for word in words)
    assert client.ask(abi.XS_SET_PERMS, b"data\0" + perms) == "ENOSPC"
    perms = b"".join(word + b"\0" for word in words[:FEW])
    assert client.ask(abi.XS_SET_PERMS, b"data\0" + perms) == b"OK\0"


def test_bytes_of_a_node():
    client = limited("node-size", 200)
    assert client.write("data/a", "v" * 169) == "ENOSPC"
    assert client.write("data/a", "v" * 168) == b"OK\0"  # and 24 of header, 8 of permission


def test_bytes_of_a_node_with_the_names_of_its_children():
    client = limited("node-size", 200)
    made, error = fill(lambda i: client.write(f"data/name{i}"))
    assert error == "ENOSPC"
    names = sum(len(f"name{i}") + 1 for i in range(made))
    assert names <= 200 - 24 - 8 < names + len(f"name{made}") + 1


def test_bytes_of_a_path_without_the_home():
    client = limited("path-max", 100)
    assert client.write("data/" + "a" * 95) == b"OK\0"
    assert client.write(f"{HOME}/data/" + "b" * 95) == b"OK\0"
    assert client.write("data/" + "a" * 96) == "EINVAL"


@pytest.mark.parametrize("name", QUOTAS)
def test_domain_0_has_none_of_them(name):
    dom0 = Client(guests_store(quotas={name: 1}), DOM0)
    numbers = [dom0.start() for _ in range(3)]
    for number in numbers:
        assert dom0.write(f"/a/{number}/c", "v" * 3000, number) == b"OK\0"
        assert dom0.watch(f"/a/{number}") == b"OK\0"
        assert dom0.ask(abi.XS_SET_PERMS, b"/a/%d\0n1\0r2\0" % number, number) == b"OK\0"
        assert dom0.end(number) == b"OK\0"


class TestSetting:
    @pytest.fixture
    def server(self):
        return guests_store()

    @pytest.fixture
    def dom0(self, server):
        return Client(server, DOM0)

    def test_the_names_can_be_asked(self, dom0):
        assert dom0.ask(wire.XS_GET_QUOTA, b"").rstrip(b"\0").decode().split() == list(QUOTAS)

    def test_the_global_ones_are_those_of_new_domains(self, server, dom0):
        old = Client(server, 1)
        assert dom0.ask(wire.XS_SET_QUOTA, b"watches\x001\0") == b"OK\0"
        assert dom0.ask(wire.XS_GET_QUOTA, b"watches\0") == b"1\0"
        new = Client(server, 2)
        assert [fill(lambda i, c=c: c.watch(f"/{i}"))[0] for c in (old, new)] == [128, 1]

    def test_one_domain_can_have_others_even_before_it_is_there(self, server, dom0):
        assert dom0.ask(wire.XS_SET_QUOTA, b"7\0watches\x002\0") == b"OK\0"
        assert dom0.ask(wire.XS_GET_QUOTA, b"7\0watches\0") == b"2\0"
        client = Client(server, 7)
        assert fill(lambda i: client.watch(f"/{i}")) == (2, "E2BIG")

    def test_zero_is_no_limit(self, server, dom0):
        client = Client(server)
        assert dom0.ask(wire.XS_SET_QUOTA, b"1\0node-size\x000\0") == b"OK\0"
        assert client.write("data/big", "v" * 4000) == b"OK\0"

    @pytest.mark.parametrize(
        ("payload", "error"),
        [
            (b"none\x001\0", "EINVAL"),
            (b"watches\0many\0", "EINVAL"),
            (b"watches\0", "EINVAL"),
            (b"1\0watches\x001\0more\0", "EINVAL"),
        ],
    )
    def test_what_cannot_be_is_refused(self, dom0, payload, error):
        assert dom0.ask(wire.XS_SET_QUOTA, payload) == error

    def test_of_an_unknown_domain_nothing_can_be_asked(self, dom0):
        assert dom0.ask(wire.XS_GET_QUOTA, b"77\0watches\0") == "ENOENT"
