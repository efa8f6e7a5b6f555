"""Closing a subscription: nothing of it runs afterwards, and nobody waits for himself."""

from __future__ import annotations

import threading

import pytest
from watches.fakes import FakeHandle, FakeStore, Followed, Handler, Tell, domain_of

from pvdump.watches.dispatcher import Dispatcher


def fire(store: FakeStore, *paths: str) -> None:
    for path in paths:
        store.fire(path, "/data")


def test_queued_events_are_dropped_and_later_ones_not_taken(
    store: FakeStore, dispatcher: Dispatcher
) -> None:
    handler, other = Handler(), Handler()
    other_subscription = dispatcher.subscribe("/data", domain_of, other)
    fire(store, "/data/7/a")
    running = other.called()
    subscription = dispatcher.subscribe("/data", domain_of, handler)
    fire(store, "/data/7/b")
    subscription.close()
    fire(store, "/data/7/c")
    for name in "abc":
        call = running if name == "a" else other.called()
        assert call.event.path == f"/data/7/{name}"
        call.go()
    other_subscription.close()
    assert handler.idle()


def test_subscribing_while_the_dispatcher_closes_leaves_no_watch(
    store: FakeStore, dispatcher: Dispatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = store.watch

    def watch_late(path: str, tell: Tell) -> FakeHandle:
        dispatcher.close()
        return watch(path, tell)

    monkeypatch.setattr(store, "watch", watch_late)
    dispatcher.subscribe("/data", domain_of, Handler())
    assert store.watches["/data"] == []


def test_closing_waits_for_the_running_handler(store: FakeStore, dispatcher: Dispatcher) -> None:
    handler, done = Handler(), []
    subscription = dispatcher.subscribe("/data", domain_of, handler)
    fire(store, "/data/7/a", "/data/8/a")
    calls = [handler.called(), handler.called()]
    for call in calls:
        call.go(lambda: done.append(True))
    subscription.close()
    assert done == [True, True]


def test_closing_does_not_wait_for_handlers_of_other_subscriptions(
    store: FakeStore, dispatcher: Dispatcher
) -> None:
    handler, other = Handler(), Handler()
    subscription = dispatcher.subscribe("/data", domain_of, handler)
    dispatcher.subscribe("/data", domain_of, other)
    fire(store, "/data/7/a")
    handler.called().go()
    stalled = other.called()
    subscription.close()
    stalled.go()


def test_closing_ends_the_watch(store: FakeStore, dispatcher: Dispatcher) -> None:
    subscription = dispatcher.subscribe("/data", domain_of, Handler())
    assert len(store.watches["/data"]) == 1
    subscription.close()
    assert store.watches["/data"] == []


def test_closing_twice_is_closing_once(store: FakeStore, dispatcher: Dispatcher) -> None:
    subscription = dispatcher.subscribe("/data", domain_of, Handler())
    subscription.close()
    subscription.close()
    assert store.watches["/data"] == []


def test_handler_may_close_its_own_subscription_and_gets_nothing_more(
    store: FakeStore, dispatcher: Dispatcher
) -> None:
    handler, closed = Handler(), threading.Event()
    subscription = dispatcher.subscribe("/data", domain_of, handler)
    fire(store, "/data/7/a", "/data/7/b")

    def close() -> None:
        subscription.close()
        closed.set()

    handler.called().go(close)
    closed.wait()
    fire(store, "/data/7/c")
    subscription.close()
    assert handler.idle()


def test_handler_that_closes_its_own_subscription_waits_for_the_other_domains(
    store: FakeStore, dispatcher: Dispatcher
) -> None:
    handler, order = Handler(), []
    subscription = dispatcher.subscribe("/data", domain_of, handler)
    fire(store, "/data/7/a", "/data/8/a")
    calls = {call.event.path: call for call in (handler.called(), handler.called())}
    closer, other = calls["/data/7/a"], calls["/data/8/a"]

    def close() -> None:
        subscription.close()
        order.append("closed")

    closer.go(close)
    other.go(lambda: order.append("other"))
    closer_done, last = Handler(), "/data/7/end"
    dispatcher.subscribe("/data", domain_of, closer_done)
    fire(store, last)
    closer_done.called().go()
    assert order == ["other", "closed"]


def test_two_handlers_of_one_subscription_may_both_close_it(
    store: FakeStore, dispatcher: Dispatcher
) -> None:
    handler = Handler()
    subscription = dispatcher.subscribe("/data", domain_of, handler)
    fire(store, "/data/7/a", "/data/8/a")
    for call in [handler.called(), handler.called()]:
        call.go(subscription.close)
    subscription.close()
    fire(store, "/data/7/b")
    assert handler.idle()


@pytest.mark.parametrize("count", [2, 3, 8])
def test_handlers_may_close_each_others_subscriptions_in_a_ring(
    store: FakeStore, dispatcher: Dispatcher, count: int
) -> None:
    handlers = [Handler() for _ in range(count)]
    subscriptions = [
        dispatcher.subscribe(f"/data/{n}", domain_of, handler) for n, handler in enumerate(handlers)
    ]
    for n in range(count):
        store.fire(f"/data/{n}")
    calls = [handler.called() for handler in handlers]
    for n, call in enumerate(calls):
        call.go(subscriptions[(n + 1) % count].close)
    for subscription in subscriptions:
        subscription.close()
    assert all(handler.idle() for handler in handlers)


def test_watch_that_the_store_refuses_leaves_no_subscription(
    store: FakeStore, dispatcher: Dispatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: str, tell: object) -> None:
        raise OSError("no more watches")

    monkeypatch.setattr(store, "watch", refuse)
    with pytest.raises(OSError, match="no more watches"):
        dispatcher.subscribe("/data", domain_of, Handler())
    assert len(dispatcher._subscriptions) == 2  # the two that look for domains


def test_follower_that_was_closed_is_told_nothing(store: FakeStore, dispatcher: Dispatcher) -> None:
    followed, other = Followed(), Followed()
    follower = dispatcher.follow(followed.appeared, followed.vanished)
    dispatcher.follow(other.appeared, other.vanished)
    follower.close()
    store.create(7)
    assert other.next() == ("appeared", 7, 1)
    assert followed.told.empty()
