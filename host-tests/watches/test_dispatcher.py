"""Guarantees to a subscriber: order within a domain, and no delay by another domain's handler."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest
from watches.fakes import Clock, FakeStore, Handler, domain_of

from pvdump.watches.dispatcher import NOBODY, Dispatcher
from pvdump.watches.queue import DomainIdentity

Make = Callable[..., Dispatcher]


@pytest.fixture
def handler(dispatcher: Dispatcher) -> Handler:
    """Subscribed to /data, whose /data/N/... are domain N's."""
    handler = Handler()
    dispatcher.subscribe("/data", domain_of, handler, "handler")
    return handler


def fire(store: FakeStore, *paths: str) -> None:
    for path in paths:
        store.fire(path, "/data")


def test_events_of_a_domain_are_handled_in_order(store: FakeStore, handler: Handler) -> None:
    fire(store, "/data/7/b", "/data/7/a", "/data/7/c")
    for name in "bac":
        call = handler.called()
        assert call.event.path == f"/data/7/{name}"
        call.go()


def test_handler_gets_token_and_domain(store: FakeStore, handler: Handler) -> None:
    fire(store, "/data/7/a")
    call = handler.called()
    assert (call.event.token, call.event.domain, call.event.lost) == (
        "token",
        DomainIdentity(7, 1),
        0,
    )
    call.go()


def test_one_handler_at_a_time_for_a_domain(store: FakeStore, handler: Handler) -> None:
    fire(store, "/data/7/a", "/data/7/b", "/data/8/a")
    first, other = sorted((handler.called(), handler.called()), key=lambda call: call.event.path)
    assert (first.event.path, other.event.path) == ("/data/7/a", "/data/8/a")
    assert handler.idle()
    first.go()
    second = handler.called()
    assert second.event.path == "/data/7/b"
    second.go()
    other.go()


def test_any_number_of_stalled_handlers_hold_up_nobody_else(
    store: FakeStore, handler: Handler
) -> None:
    fire(store, *[f"/data/{domid}/a" for domid in range(200)])
    stalled = [handler.called() for _ in range(200)]
    fire(store, "/data/200/a")
    other = handler.called()
    assert other.event.path == "/data/200/a"
    for call in [*stalled, other]:
        call.go()


def test_stalled_handler_of_no_domain_holds_up_no_domain(
    store: FakeStore, handler: Handler
) -> None:
    fire(store, "/data", "/data/7/a")
    calls = {call.event.domain: call for call in (handler.called(), handler.called())}
    assert calls.keys() == {None, DomainIdentity(7, 1)}
    for call in calls.values():
        call.go()


def test_stalled_handlers_do_not_hold_up_the_search_for_domains(
    store: FakeStore, dispatcher: Dispatcher, handler: Handler
) -> None:
    fire(store, "/data", "/data/7/a")
    stalled = [handler.called(), handler.called()]
    appeared = Handler()
    dispatcher.follow(appeared, lambda domain: None)  # type: ignore[arg-type]
    store.create(9)
    last = appeared.called()
    for call in [*stalled, last]:
        call.go()


def test_event_that_nobody_wants_is_left_out(store: FakeStore, dispatcher: Dispatcher) -> None:
    handler = Handler()
    dispatcher.subscribe("/data", lambda path, _: NOBODY if "x" in path else None, handler)
    fire(store, "/data/x", "/data/y")
    call = handler.called()
    assert call.event.path == "/data/y"
    call.go()


def test_event_that_cannot_be_sorted_is_no_domains_and_complained_of(
    store: FakeStore, handler: Handler, caplog: pytest.LogCaptureFixture
) -> None:
    fire(store, "/data/seven/a")
    call = handler.called()
    assert call.event.domain is None
    assert "/data/seven/a" in caplog.text
    call.go()


def test_repeated_event_that_is_still_queued_is_handled_once(
    store: FakeStore, handler: Handler
) -> None:
    fire(store, "/data/7/first", "/data/7/a", "/data/7/b", "/data/7/a")
    paths = []
    for _ in range(3):
        call = handler.called()
        paths.append(call.event.path[-1])
        call.go()
    fire(store, "/data/7/end")
    end = handler.called()
    assert (paths, end.event.path) == (["t", "a", "b"], "/data/7/end")
    end.go()


def test_event_that_repeats_the_one_being_handled_is_handled_again(
    store: FakeStore, handler: Handler
) -> None:
    fire(store, "/data/7/a")
    first = handler.called()
    fire(store, "/data/7/a")
    first.go()
    second = handler.called()
    assert second.event.path == "/data/7/a"
    second.go()


def test_full_queue_says_how_many_events_were_lost(store: FakeStore, make: Make) -> None:
    dispatcher, handler = make(limit=2), Handler()
    dispatcher.subscribe("/data", domain_of, handler)
    fire(store, "/data/7/running")
    running = handler.called()
    fire(store, *[f"/data/7/{n}" for n in range(5)])
    assert dispatcher.status().rows[-1].dropped == 3
    running.go()
    seen = []
    for _ in range(3):
        call = handler.called()
        seen.append((call.event.path, call.event.lost))
        call.go()
    assert seen == [("/data/7/0", 0), ("/data/7/1", 0), ("/data", 3)]


def test_repeated_event_is_not_lost_to_a_full_queue_and_keeps_its_age(
    store: FakeStore, make: Make, clock: Clock
) -> None:
    dispatcher, handler = make(limit=1), Handler()
    dispatcher.subscribe("/data", domain_of, handler)
    fire(store, "/data/7/running")
    running = handler.called()
    fire(store, "/data/7/a")
    clock.advance(5)
    fire(store, "/data/7/a")
    row = dispatcher.status().rows[-1]
    assert (row.queued, row.dropped, row.oldest) == (1, 0, 5.0)
    running.go()
    handler.called().go()


def test_losses_of_a_queue_that_stays_full_are_told_together(store: FakeStore, make: Make) -> None:
    dispatcher, handler = make(limit=1), Handler()
    dispatcher.subscribe("/data", domain_of, handler)
    fire(store, "/data/7/running")
    running = handler.called()
    fire(store, "/data/7/a", "/data/7/b")
    running.go()
    held = handler.called()
    fire(store, "/data/7/c", "/data/7/d")
    held.go()
    call = handler.called()
    assert (call.event.path, call.event.lost) == ("/data", 3)
    call.go()


def test_full_queue_of_one_domain_loses_nothing_of_another(store: FakeStore, make: Make) -> None:
    dispatcher, handler = make(limit=1), Handler()
    dispatcher.subscribe("/data", domain_of, handler)
    fire(store, "/data/7/a")
    stalled = handler.called()
    fire(store, "/data/7/b", "/data/7/c", "/data/8/a")
    other = handler.called()
    assert (other.event.path, other.event.lost) == ("/data/8/a", 0)
    other.go()
    stalled.go()
    for lost in (0, 1):
        call = handler.called()
        assert call.event.lost == lost
        call.go()


def fail() -> None:
    raise ValueError("this handler fails")


def test_handler_that_fails_gets_the_next_event(
    store: FakeStore, handler: Handler, caplog: pytest.LogCaptureFixture
) -> None:
    fire(store, "/data/7/a", "/data/7/b")
    handler.called().go(fail)
    call = handler.called()
    assert call.event.path == "/data/7/b"
    assert "handler, domain 7, /data/7/a: ValueError: this handler fails" in caplog.text
    call.go()


def test_handler_that_wants_to_end_the_thread_is_complained_of_too(
    store: FakeStore, handler: Handler, caplog: pytest.LogCaptureFixture
) -> None:
    fire(store, "/data/7/a", "/data/7/b")
    handler.called().go(lambda: exit(1))
    handler.called().go()
    assert "SystemExit" in caplog.text


def test_error_that_cannot_be_told_ends_no_worker(
    store: FakeStore, handler: Handler, caplog: pytest.LogCaptureFixture
) -> None:
    class Untold(Exception):
        def __str__(self) -> str:
            raise ValueError

    def fail() -> None:
        raise Untold

    fire(store, "/data/7/a", "/data/7/b")
    handler.called().go(fail)
    handler.called().go()
    assert "/data/7/a: Untold" in caplog.text


def test_failures_are_logged_once_a_second_with_how_many_were_left_out(
    store: FakeStore, make: Make, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    dispatcher, handler = make(), Handler()
    dispatcher.subscribe("/data", domain_of, handler)
    fire(store, *[f"/data/7/{n}" for n in range(5)])
    for _ in range(4):
        handler.called().go(fail)
    last = handler.called()
    assert len(caplog.records) == 1
    clock.advance(1)
    last.go(fail)
    fire(store, "/data/7/end")
    handler.called().go()
    assert [record.getMessage().rpartition("fails")[2] for record in caplog.records] == [
        "",
        " (3 more were left out)",
    ]


def test_failures_of_one_domain_do_not_hide_those_of_another(
    store: FakeStore, handler: Handler, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    fire(store, "/data/7/a", "/data/8/a")
    calls = [handler.called(), handler.called()]
    fire(store, "/data/7/b", "/data/8/b")
    for call in calls:
        call.go(fail)
    for _ in range(2):
        handler.called().go()
    assert len(caplog.records) == 2


def test_after_close_nothing_is_handled(store: FakeStore, handler: Handler, make: Make) -> None:
    dispatcher, other = make(), Handler()
    dispatcher.subscribe("/other", domain_of, other)
    dispatcher.close()
    store.fire("/other")
    fire(store, "/data")
    handler.called().go()
    assert other.idle()
    assert not store.watches["/other"]


def test_close_waits_for_running_handlers(store: FakeStore, make: Make) -> None:
    dispatcher, handler = make(), Handler()
    dispatcher.subscribe("/data", domain_of, handler)
    fire(store, "/data/7/a")
    call, done = handler.called(), []
    call.go(lambda: done.append(True))
    dispatcher.close()
    assert done == [True]


def test_close_from_inside_a_handler_does_not_wait_for_itself(store: FakeStore, make: Make) -> None:
    dispatcher, handler = make(), Handler()
    dispatcher.subscribe("/data", domain_of, handler)
    fire(store, "/data/7/a", "/data/7/b")
    call = handler.called()
    call.go(dispatcher.close)
    call.thread.join()
    assert handler.idle()
