"""Domains come and go, and a domid that is used again is another domain's."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
from watches.fakes import Call, FakeStore, Followed, Handler, domain_of

from pvdump.watches.dispatcher import Dispatcher
from pvdump.watches.domains import Domains, domid
from pvdump.watches.queue import DomainIdentity
from xenpv.errors import Timeout

Make = Callable[..., Dispatcher]


@pytest.fixture
def handler(dispatcher: Dispatcher) -> Handler:
    handler = Handler()
    dispatcher.subscribe("/data", domain_of, handler, "handler")
    return handler


@pytest.fixture
def followed(dispatcher: Dispatcher) -> Followed:
    followed = Followed()
    dispatcher.follow(followed.appeared, followed.vanished)
    return followed


def fire(store: FakeStore, *paths: str) -> None:
    for path in paths:
        store.fire(path, "/data")


def test_follower_is_told_of_domains_that_are_there_and_that_come(
    store: FakeStore, followed: Followed
) -> None:
    store.create(0)
    store.create(7)
    assert sorted([followed.next(), followed.next()]) == [("appeared", 0, 1), ("appeared", 7, 1)]


def test_late_follower_is_told_of_domains_that_are_there(
    store: FakeStore, dispatcher: Dispatcher, followed: Followed
) -> None:
    store.create(7)
    followed.next()
    late = Followed()
    dispatcher.follow(late.appeared, late.vanished)
    assert late.next() == ("appeared", 7, 1)


def test_two_thousand_domains_are_found(store: FakeStore, followed: Followed) -> None:
    for number in range(2000):
        store.nodes[f"/local/domain/{number}/vm"] = b"/vm/a"
    store.fire("@introduceDomain")
    assert {followed.next()[1] for _ in range(2000)} == set(range(2000))


def test_domain_that_goes_is_told_last(store: FakeStore, followed: Followed) -> None:
    store.create(7)
    assert followed.next() == ("appeared", 7, 1)
    store.destroy(7)
    assert followed.next() == ("vanished", 7, 1)


def test_an_introduction_costs_no_look_at_the_domains_that_are_known(
    store: FakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    domains, find, seen = Domains(store), store.find, []

    def note(path: str) -> bytes | None:
        seen.append(path)
        return find(path)

    monkeypatch.setattr(store, "find", note)
    for number in (7, 8):
        store.create(number)
        domains.refresh(released=False)
    assert seen == ["/local/domain/7/vm", "/local/domain/8/vm"]


def test_shutdown_without_removal_is_no_vanishing(store: FakeStore, followed: Followed) -> None:
    store.create(7)
    assert followed.next() == ("appeared", 7, 1)
    store.fire("@releaseDomain")
    store.create(8)
    assert followed.next() == ("appeared", 8, 1)


def test_removal_drops_the_queue(store: FakeStore, followed: Followed, handler: Handler) -> None:
    stalled = stall(store, followed, handler)
    fire(store, "/data/7/b")
    store.destroy(7)
    store.create(9)
    assert followed.next() == ("appeared", 9, 1)  # so the removal was seen
    stalled.go()
    assert followed.next() == ("vanished", 7, 1)
    assert handler.idle()


def stall(store: FakeStore, followed: Followed, handler: Handler) -> Call:
    """Domain 7 with a handler inside."""
    store.create(7)
    assert followed.next() == ("appeared", 7, 1)
    fire(store, "/data/7/a")
    return handler.called()


def test_vanished_comes_after_the_running_handler(
    store: FakeStore, followed: Followed, handler: Handler
) -> None:
    stalled = stall(store, followed, handler)
    store.destroy(7)
    store.create(9)
    assert followed.next() == ("appeared", 9, 1)
    assert followed.told.empty()
    stalled.go()
    assert followed.next() == ("vanished", 7, 1)


def test_new_domain_with_an_old_domid_gets_none_of_its_events_and_waits_for_nobody(
    store: FakeStore, followed: Followed, handler: Handler
) -> None:
    stalled = stall(store, followed, handler)
    fire(store, "/data/7/old")
    store.destroy(7)
    store.create(9)
    assert followed.next() == ("appeared", 9, 1)
    store.create(7)
    assert followed.next() == ("appeared", 7, 2)
    fire(store, "/data/7/new")
    call = handler.called()
    assert (call.event.path, call.event.domain) == ("/data/7/new", DomainIdentity(7, 2))
    call.go()
    stalled.go()
    assert followed.next() == ("vanished", 7, 1)
    assert handler.idle()


def test_domid_given_again_between_two_looks_is_a_new_domain(
    store: FakeStore, followed: Followed, handler: Handler
) -> None:
    stalled = stall(store, followed, handler)
    fire(store, "/data/7/b")
    store.nodes["/local/domain/7/vm"] = b"/vm/another"
    store.fire("@releaseDomain")
    assert followed.next() == ("appeared", 7, 2)
    call = handler.called()  # b may have been the new domain's: it is told to look for itself
    assert (call.event.path, call.event.domain, call.event.lost) == (
        "/data",
        DomainIdentity(7, 2),
        1,
    )
    call.go()
    stalled.go()
    assert followed.next() == ("vanished", 7, 1)


def test_vm_node_that_comes_late_or_goes_early_makes_no_new_domain(store: FakeStore) -> None:
    domains = Domains(store)
    store.nodes["/local/domain/7/name"] = b"x"
    assert domains.refresh(False).appeared == [7]
    store.nodes["/local/domain/7/vm"] = b"/vm/a"
    assert domains.refresh(True).replaced == []
    del store.nodes["/local/domain/7/vm"]
    assert domains.refresh(True).replaced == []
    store.nodes["/local/domain/7/vm"] = b"/vm/b"
    assert domains.refresh(True).replaced == [7]


def test_vanishing_is_not_told_to_whom_appearing_was_not(
    store: FakeStore, dispatcher: Dispatcher, followed: Followed, handler: Handler
) -> None:
    stalled = stall(store, followed, handler)
    late = Followed()
    dispatcher.follow(late.appeared, late.vanished)
    store.destroy(7)
    stalled.go()
    assert followed.next() == ("vanished", 7, 1)
    store.create(9)
    assert late.next() == ("appeared", 9, 1)


def test_events_before_a_domain_is_found_are_its_own(
    store: FakeStore, followed: Followed, handler: Handler
) -> None:
    fire(store, "/data/7/a", "/data/7/b")
    first = handler.called()
    store.create(7)
    store.create(8)
    assert followed.next() == ("appeared", 8, 1)
    first.go()
    second = handler.called()
    assert (second.event.path, second.event.domain) == ("/data/7/b", DomainIdentity(7, 1))
    second.go()
    assert followed.next() == ("appeared", 7, 1)


def test_events_after_a_domain_is_gone_are_handled_and_its_queue_forgotten(
    store: FakeStore, make: Make
) -> None:
    dispatcher, handler, followed = make(wait=lambda wake: False), Handler(), Followed()
    dispatcher.subscribe("/data", domain_of, handler)
    dispatcher.follow(followed.appeared, followed.vanished)
    store.create(7)
    followed.next()
    store.destroy(7)
    followed.next()
    fire(store, "/data/7/late")
    call = handler.called()
    assert call.event.path == "/data/7/late"
    call.go()
    call.thread.join()
    assert 7 not in [row.domid for row in dispatcher.status().rows]


def test_late_events_still_queued_when_a_domid_is_used_again_are_told_as_lost(
    store: FakeStore, followed: Followed, handler: Handler
) -> None:
    store.create(7)
    followed.next()
    store.destroy(7)
    followed.next()
    fire(store, "/data/7/late", "/data/7/whose", "/data/7/too")
    late = handler.called()
    store.create(7)
    assert followed.next()[:2] == ("appeared", 7)
    call = handler.called()
    assert (call.event.path, call.event.lost) == ("/data", 2)
    assert call.event.domain != late.event.domain
    call.go()
    late.go()


def test_look_that_fails_is_complained_of_and_the_next_one_finds_all(
    store: FakeStore, followed: Followed, caplog: pytest.LogCaptureFixture
) -> None:
    directory, failing = store.directory, threading.Event()

    def fail(path: str, default: list[str] | None = None) -> list[str]:
        store.directory = directory  # type: ignore[method-assign]
        failing.set()
        raise Timeout("directory /local/domain: no answer")

    store.directory = fail  # type: ignore[method-assign]
    store.create(7)
    failing.wait()
    store.create(8)
    assert {followed.next()[1], followed.next()[1]} == {7, 8}
    assert "no answer" in caplog.text


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("0", 0),
        ("32751", 32751),
        ("32752", None),
        ("007", None),
        ("x", None),
        ("", None),
        ("9" * 5000, None),
        ("-1", None),
        ("²", None),
    ],
)
def test_only_numbers_of_domains_are_domids(name: str, number: int | None) -> None:
    assert domid(name) == number
