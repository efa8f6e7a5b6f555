"""Watches: which changes they tell, to whom, in which words and order."""

import pytest
from xenstored.clients import HOME, Client, guests_store

from pvdump.xenstored.domain import DOM0
from xenpv import abi
from xenpv.xenstore.wire import Packet


@pytest.fixture
def server():
    return guests_store()


@pytest.fixture
def client(server):
    return Client(server)


@pytest.fixture
def dom0(server):
    return Client(server, DOM0)


class TestRegistration:
    def test_it_fires_once_when_it_is_set_whether_the_node_is_there_or_not(self, client):
        assert client.watch("data/x") == b"OK\0"
        assert client.events_since() == ["data/x|t|"]

    def test_it_fires_once_when_it_is_set_even_for_what_cannot_be_read(self, client):
        client.watch("/local/domain/9")
        assert client.events_since() == ["/local/domain/9|t|"]

    def test_the_same_one_twice_is_eexist_in_whatever_words(self, client):
        client.watch("data")
        assert client.watch(f"{HOME}/data") == "EEXIST"
        assert client.watch("data", "another") == b"OK\0"

    def test_unwatch_ends_it_once(self, client, server):
        client.watch("data")
        client.events_since()
        assert client.ask(abi.XS_UNWATCH, b"data\0t\0") == b"OK\0"
        assert client.ask(abi.XS_UNWATCH, b"data\0t\0") == "ENOENT"
        server.write(f"{HOME}/data/a", "")
        assert client.events_since() == []

    def test_reset_watches_ends_watches_and_transactions(self, client, server):
        client.watch("data")
        number = client.start()
        client.events_since()
        assert client.ask(abi.XS_RESET_WATCHES, b"\0") == b"OK\0"
        server.write(f"{HOME}/data/a", "")
        assert client.events_since() == []
        assert client.read("data/a", number) == "ENOENT"


class TestPath:
    def test_it_fires_for_changes_at_and_below_in_the_words_it_was_set_in(self, client, server):
        client.watch("data")
        client.watch(f"{HOME}/data", "abs")
        client.events_since()
        for path in ("data", "data/a/b", "database"):
            server.write(f"{HOME}/{path}", "", "n1")
        assert client.events_since() == [
            "data|t|",
            f"{HOME}/data|abs|",
            "data/a/b|t|",
            f"{HOME}/data/a/b|abs|",
        ]

    def test_the_root_is_above_everything(self, dom0, server):
        dom0.watch("/")
        dom0.events_since()
        server.write("/a/b", "")
        assert dom0.events_since() == ["/a/b|t|"]

    @pytest.mark.parametrize(
        ("depth", "events"),
        [
            (0, ["data|t|"]),
            (1, ["data|t|", "data/a|t|"]),
            (2, ["data|t|", "data/a|t|", "data/a/b|t|"]),
            (None, ["data|t|", "data/a|t|", "data/a/b|t|", "data/a/b/c|t|"]),
        ],
    )
    def test_its_depth_limits_it(self, client, server, depth, events):
        client.watch("data", depth=depth)
        client.events_since()
        for path in ("data", "data/a", "data/a/b", "data/a/b/c"):
            server.write(f"{HOME}/{path}", "")
        assert client.events_since() == events

    def test_depth_of_the_root_counts_from_its_children(self, dom0, server):
        dom0.watch("/", depth=1)
        dom0.events_since()
        server.write("/a/b", "")
        server.write("/a", "")
        assert dom0.events_since() == ["/a|t|"]


class TestRemoval:
    def test_each_watch_is_told_the_least_specific_path_that_concerns_it(self, client, server):
        server.write(f"{HOME}/data/a/b/c", "")
        for path in ("data", "data/a", "data/a/b", "data/a/b/c", "data/a/none"):
            client.watch(path)
        client.events_since()
        server.rm(f"{HOME}/data/a/b")
        # The three watches at and above it have the same token, so one event is enough for them.
        assert client.events_since() == ["data/a/b/c|t|", "data/a/b|t|"]

    def test_of_what_was_not_there_nothing_is_told(self, client):
        client.watch("data")
        client.events_since()
        client.rm("data/none")
        assert client.events_since() == []


class TestPermission:
    def test_it_is_silent_about_what_its_owner_may_not_read(self, client, server):
        client.watch("secret")
        client.watch(HOME, "home")
        client.events_since()
        server.write(f"{HOME}/secret", "x")
        server.write(f"{HOME}/secret/x", "")
        server.rm(f"{HOME}/secret/x")
        assert client.events_since() == []

    def test_who_loses_a_node_by_its_permissions_is_told_of_that(self, client, server):
        server.write(f"{HOME}/gift", "", "n0 r1")
        client.watch("gift")
        client.events_since()
        server.write(f"{HOME}/gift", "", "n0")  # two changes: the value, then the permissions
        server.write(f"{HOME}/gift", "more")
        assert client.events_since() == ["gift|t|"]

    def test_who_may_read_what_is_removed_is_told_of_it(self, client, server):
        server.write("/shared", "", "n0 r1")
        client.watch("/shared")
        client.events_since()
        server.rm("/shared")
        assert client.events_since() == ["/shared|t|"]

    def test_below_a_removed_node_each_node_s_own_permissions_count(self, client, server):
        server.write("/shared", "", "n0")
        server.write("/shared/open", "", "n0 r1")
        client.watch("/shared")
        client.watch("/shared/open")
        client.events_since()
        server.rm("/shared")
        assert client.events_since() == ["/shared/open|t|"]


class TestTransaction:
    def test_it_fires_at_commit_and_not_before(self, client):
        client.watch("data")
        client.events_since()
        number = client.start()
        client.write("data/a", "x", number)
        assert client.events_since() == []
        client.end(number)
        assert client.events_since() == ["data/a|t|"]

    def test_nothing_fires_for_one_that_is_dropped_or_fails(self, client, server):
        client.watch("data/a")
        client.events_since()
        number = client.start()
        client.write("data/a", "x", number)
        client.end(number, commit=False)
        number = client.start()
        client.write("data/a", "x", number)
        server.write(f"{HOME}/data/a", "y")
        assert client.events_since() == ["data/a|t|"]
        assert client.end(number) == "EAGAIN"
        assert client.events_since() == []

    def test_its_events_come_in_the_order_of_its_changes(self, client):
        client.watch("data")
        client.events_since()
        number = client.start()
        for name in "bca":
            client.write(f"data/{name}", "", number)
        client.rm("data/c", number)
        client.end(number)
        assert client.events_since() == ["data/b|t|", "data/a|t|"]


class TestSpecial:
    def test_domains_that_come_and_go_are_told(self, dom0, server):
        dom0.watch("@introduceDomain")
        dom0.watch("@releaseDomain")
        dom0.events_since()
        server.introduce(5)
        assert dom0.events_since() == ["@introduceDomain|t|"]
        server.introduce(5)
        assert dom0.events_since() == []
        server.release(5)
        assert dom0.events_since() == ["@releaseDomain|t|"]

    def test_with_depth_1_the_domain_is_named(self, dom0, server):
        dom0.watch("@introduceDomain", depth=1)
        dom0.watch("@releaseDomain", depth=1)
        dom0.watch("@releaseDomain", "zero", depth=0)
        dom0.events_since()
        server.introduce(5)
        server.release(5)
        assert dom0.events_since() == ["@introduceDomain/5|t|", "@releaseDomain/5|t|"]

    def test_one_domain_can_be_waited_for(self, dom0, server):
        dom0.watch("@releaseDomain/5")
        dom0.events_since()
        for domid in (4, 5):
            server.introduce(domid)
            server.release(domid)
        assert dom0.events_since() == ["@releaseDomain/5|t|"]

    def test_a_shutdown_is_told_once_until_the_domain_is_resumed(self, dom0, server):
        server.introduce(5)
        dom0.watch("@releaseDomain")
        dom0.events_since()
        server.shut_down(5)
        server.shut_down(5)
        assert dom0.events_since() == ["@releaseDomain|t|"]
        assert dom0.ask(abi.XS_RESUME, b"5\0") == b"OK\0"
        server.shut_down(5)
        assert dom0.events_since() == ["@releaseDomain|t|"]

    def test_every_domain_is_told_of_even_where_the_same_event_waits(self, dom0, server):
        dom0.watch("@introduceDomain")
        dom0.events_since()
        server.introduce(5)
        server.introduce(6)
        assert dom0.events_since() == ["@introduceDomain|t|"] * 2

    def test_a_guest_is_told_of_them_once_it_is_allowed_to(self, client, dom0, server):
        client.watch("@introduceDomain")
        client.events_since()
        server.introduce(5)
        assert client.events_since() == []
        assert dom0.ask(abi.XS_SET_PERMS, b"@introduceDomain\0n0\0r1\0") == b"OK\0"
        assert dom0.ask(abi.XS_GET_PERMS, b"@introduceDomain\0") == b"n0\0r1\0"
        assert client.events_since() == ["@introduceDomain|t|"]  # its permissions are a change too
        server.introduce(6)
        assert client.events_since() == ["@introduceDomain|t|"]

    def test_a_watch_of_the_root_is_not_told_of_special_names(self, dom0):
        dom0.watch("/")
        dom0.events_since()
        assert dom0.ask(abi.XS_SET_PERMS, b"@introduceDomain\0n0\0r1\0") == b"OK\0"
        assert dom0.events_since() == []


class TestDelivery:
    def test_a_client_s_watches_are_told_in_the_order_they_were_set(self, client, server):
        for path, token in (("data/a", "1"), ("data", "2"), ("data/a", "3")):
            client.watch(path, token)
        client.events_since()
        server.write(f"{HOME}/data/a", "x")
        assert client.events_since() == ["data/a|1|", "data/a|2|", "data/a|3|"]

    def test_an_event_that_waits_already_is_not_sent_twice(self, client, server):
        client.watch("data")
        client.events_since()
        for _ in range(3):
            server.write(f"{HOME}/data/a", "x")
        assert client.events_since() == ["data/a|t|"]

    def test_an_event_that_is_on_its_way_is_sent_again(self, client, server):
        client.watch("data")
        client.events_since()
        server.write(f"{HOME}/data/a", "x")
        begun = client.connection.take(3)
        client.connection.drop(3)
        client._parser.feed(begun)
        server.write(f"{HOME}/data/a", "y")
        assert client.events_since() == ["data/a|t|"] * 2

    def test_an_event_too_long_for_a_packet_is_left_out(self, dom0, server):
        dom0.watch("/", "t" * 4000)
        dom0.events_since()
        server.write("/" + "a" * 200, "")
        assert dom0.events_since() == []

    def test_a_request_is_outstanding_until_its_events_are_taken(self, server, client, dom0):
        dom0.watch(f"{HOME}/data")
        dom0.events_since()
        for i in range(30):
            client.connection.receive(Packet(abi.XS_WRITE, i, 0, b"data/%d\0" % i).encode())
            while client.connection.pending():
                client.connection.drop(1)
        assert client.connection.outstanding == 20
        assert len(dom0.events_since()) == 20
        assert client.connection.outstanding == 0

    def test_a_client_that_is_gone_keeps_nobody_waiting(self, server, client, dom0):
        dom0.watch(f"{HOME}/data")
        for i in range(30):
            client.connection.receive(Packet(abi.XS_WRITE, i, 0, b"data/%d\0" % i).encode())
            while client.connection.pending():
                client.connection.drop(1)
        server.disconnect(dom0.connection)
        assert not client.connection.stalled()


class TestFromThisProcess:
    def test_it_is_told_without_words_and_not_at_first(self, server, client):
        told = []
        server.watch(f"{HOME}/data", lambda: told.append(1))
        client.write("data/a")
        assert told == [1]

    def test_what_it_changes_is_told_after_what_it_was_told(self, server, dom0):
        dom0.watch("/")
        dom0.events_since()
        server.watch("/a", lambda: server.write("/third", ""))
        tree = server.tree
        tree.write(dom0.connection.domain, "/a", b"")
        tree.write(dom0.connection.domain, "/second", b"")
        server.fire()
        assert dom0.events_since() == ["/a|t|", "/second|t|", "/third|t|"]

    def test_what_it_changes_is_owed_by_no_request(self, server, client, dom0):
        dom0.watch("/third")
        dom0.events_since()
        server.watch(f"{HOME}/data", lambda: server.write("/third", ""))
        client.write("data/a")
        assert dom0.connection.pending()
        assert client.connection.outstanding == 0

    def test_unwatch_ends_it(self, server):
        def tell():
            raise AssertionError("told")

        server.watch("/a", tell)
        server.unwatch("/a", tell)
        server.write("/a", "")
        with pytest.raises(ValueError, match="no watch of /a"):
            server.unwatch("/a", tell)
