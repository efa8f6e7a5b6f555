"""The toolstack's requests: domains that come and go, targets, control."""

import pytest
from xenstored.clients import HOME, Client, guests_store

from pvdump.xenstored.domain import DOM0
from xenpv import abi


@pytest.fixture
def server():
    server = guests_store()
    server.lines = []
    server.log = server.lines.append
    return server


@pytest.fixture
def dom0(server):
    return Client(server, DOM0)


class Transport:
    def __init__(self, server, domid):
        self.closed = 0
        self.connection = server.introduce(domid, self)

    def close(self):
        self.closed += 1


def introduced(dom0, domid):
    return dom0.ask(abi.XS_IS_DOMAIN_INTRODUCED, b"%d\0" % domid)


class TestDomains:
    def test_an_introduced_domain_is_known_until_it_is_released(self, dom0):
        assert introduced(dom0, 5) == b"F\0"
        assert dom0.ask(abi.XS_INTRODUCE, b"5\x001000\x002\0") == b"OK\0"
        assert introduced(dom0, 5) == b"T\0"
        assert dom0.ask(abi.XS_RELEASE, b"5\0") == b"OK\0"
        assert introduced(dom0, 5) == b"F\0"

    def test_domain_0_is_always_there(self, dom0):
        assert introduced(dom0, DOM0) == b"T\0"
        assert introduced(dom0, 0x7FF0) == b"T\0"  # DOMID_SELF

    def test_with_a_xen_below_introduce_makes_the_ring(self, server, dom0):
        made = []

        def attach(domid, gfn, port):
            made.append((domid, gfn, port))
            return Transport(server, domid)

        server.attach = attach
        assert dom0.ask(abi.XS_INTRODUCE, b"5\x001000\x002\0") == b"OK\0"
        assert made == [(5, 1000, 2)]
        assert introduced(dom0, 5) == b"T\0"

    def test_introduced_again_the_connection_starts_anew_on_the_new_ring(self, server):
        first = Transport(server, 5)
        client = Client(server, 1)
        first.connection.receive(b"half")
        second = Transport(server, 5)
        assert (first.closed, second.closed) == (1, 0)
        assert not second.connection.half_received()
        assert client.read("data") == b""

    def test_released_its_ring_is_closed_and_its_nodes_are_gone(self, server, dom0):
        transport = Transport(server, 1)
        dom0.ask(abi.XS_RELEASE, b"1\0")
        assert transport.closed == 1
        assert not server.exists(f"{HOME}/data")
        assert server.exists(HOME)

    def test_the_next_domain_of_that_number_inherits_nothing(self, server, dom0):
        server.write("/shared", "", "n0 b5")
        Client(server, 5).watch("/shared")
        dom0.ask(abi.XS_RELEASE, b"5\0")
        client = Client(server, 5)
        server.write("/shared", "x")
        assert client.events_since() == []
        assert client.read("/shared") == "EACCES"

    @pytest.mark.parametrize(
        ("kind", "payload", "error"),
        [
            (abi.XS_INTRODUCE, b"5\x001\0", "EINVAL"),
            (abi.XS_INTRODUCE, b"5\x001\x000\0", "EINVAL"),
            (abi.XS_INTRODUCE, b"0\x001\x001\0", "EINVAL"),
            (abi.XS_INTRODUCE, b"x\x001\x001\0", "EINVAL"),
            (abi.XS_RELEASE, b"0\0", "EINVAL"),
            (abi.XS_RELEASE, b"77\0", "ENOENT"),
            (abi.XS_RESUME, b"77\0", "ENOENT"),
            (abi.XS_RESUME, b"", "EINVAL"),
            (abi.XS_SET_TARGET, b"77\x001\0", "ENOENT"),
            (abi.XS_SET_TARGET, b"1\0", "EINVAL"),
            (abi.XS_IS_DOMAIN_INTRODUCED, b"65536\0", "EINVAL"),
        ],
    )
    def test_what_cannot_be_is_refused(self, dom0, kind, payload, error):
        assert dom0.ask(kind, payload) == error


class TestTarget:
    def test_it_gives_a_domain_the_rights_of_another(self, server, dom0):
        server.introduce(1)
        model = Client(server, 7)
        assert model.write(f"{HOME}/data/a", "x") == "EACCES"
        assert dom0.ask(abi.XS_SET_TARGET, b"7\x001\0") == b"OK\0"
        assert model.write(f"{HOME}/data/a", "x") == b"OK\0"
        assert dom0.ask(abi.XS_GET_PERMS, f"{HOME}/data/a\0".encode()) == b"n7\0"

    def test_it_ends_with_that_domain(self, server, dom0):
        server.introduce(1)
        model = Client(server, 7)
        dom0.ask(abi.XS_SET_TARGET, b"7\x001\0")
        dom0.ask(abi.XS_RELEASE, b"1\0")
        server.write(f"{HOME}/data", "", "n1")
        assert model.read(f"{HOME}/data") == "EACCES"


class TestControl:
    def control(self, dom0, *words):
        answer = dom0.ask(abi.XS_CONTROL, b"".join(word.encode() + b"\0" for word in words))
        return answer if isinstance(answer, str) else answer.rstrip(b"\0").decode()

    def test_check_finds_nothing_wrong_where_nothing_is(self, dom0):
        assert self.control(dom0, "check") == "OK"

    def test_check_says_what_is_wrong(self, server, dom0):
        del server.tree.nodes[f"{HOME}/data"]
        assert f"{HOME}: lists data, which is not there" in self.control(dom0, "check")

    def test_print_goes_to_the_log(self, server, dom0):
        assert self.control(dom0, "print", "hello") == "OK"
        assert self.control(dom0, "print", "\x1b[2J\n") == "OK"
        assert server.lines == ["control: hello", "control: \\x1b[2J\\x0a"]

    def test_log_turns_the_trace_on_and_off(self, server, dom0):
        assert self.control(dom0, "log") == "trace: off\n"
        assert self.control(dom0, "log", "on") == "OK"
        dom0.read("/")
        assert self.control(dom0, "log", "off") == "OK"
        assert "dom0 < READ req 3 tx 0 /|" in server.lines
        dom0.read("/")
        assert len(server.lines) == 4  # the answer to "on", two of READ, the request of "off"

    def test_quota_shows_and_sets(self, server, dom0):
        assert self.control(dom0, "quota", "set", "watches", "7") == "OK"
        shown = self.control(dom0, "quota").splitlines()
        assert shown[0] == "Quota settings:"
        assert "watches          :        7 Watches per domain" in shown
        assert self.control(dom0, "quota", "set", "watches", "0") == "EINVAL"

    def test_quota_of_a_domain_is_what_it_uses(self, server, dom0):
        client = Client(server, 1)
        client.watch("data")
        shown = self.control(dom0, "quota", "1").splitlines()
        assert shown == [
            "Domain 1:",
            "nodes            :        1",
            "watches          :        1",
            "transactions     :        0",
            "outstanding      :        0",
        ]

    def test_help_lists_the_commands(self, dom0):
        commands = [line.split()[0] for line in self.control(dom0, "help").splitlines()]
        assert commands == ["check", "log", "print", "quota", "help"]

    def test_what_is_not_known_is_refused(self, dom0):
        assert self.control(dom0, "live-update") == "EINVAL"
