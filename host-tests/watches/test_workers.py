"""Threads come with the work and go when there is none."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
from watches.fakes import FakeStore, Handler, domain_of, workers

from pvdump.watches.dispatcher import Dispatcher
from pvdump.watches.workers import Worker

Make = Callable[..., Dispatcher]


def at_once(wake: threading.Lock) -> bool:
    """The wait of a worker that ends when it has nothing to do."""
    return False


def for_ever(wake: threading.Lock) -> bool:
    return wake.acquire()


def fire(store: FakeStore, *paths: str) -> None:
    for path in paths:
        store.fire(path, "/data")


def test_sleeping_domains_have_no_thread(store: FakeStore, make: Make) -> None:
    before = workers()
    dispatcher, handler = make(wait=at_once), Handler()
    dispatcher.subscribe("/data", domain_of, handler)
    for domid in range(50):
        fire(store, f"/data/{domid}/a")
        call = handler.called()
        call.go()
        call.thread.join()
    assert workers() - before == set()
    assert dispatcher.status().workers == 0


def test_idle_worker_is_used_again(store: FakeStore, make: Make) -> None:
    idle = threading.Semaphore(0)

    def wait(wake: threading.Lock) -> bool:
        idle.release()
        return wake.acquire()

    dispatcher, handler = make(wait=wait), Handler()
    dispatcher.subscribe("/data", domain_of, handler)
    threads = set()
    for domid in range(20):
        fire(store, f"/data/{domid}/a")
        call = handler.called()
        threads.add(call.thread)
        call.go()
        idle.acquire()
    assert len(threads) == 1


def test_worker_that_rested_least_is_called_first(store: FakeStore, make: Make) -> None:
    idle = threading.Semaphore(0)

    def wait(wake: threading.Lock) -> bool:
        idle.release()
        return wake.acquire()

    dispatcher, handler = make(wait=wait), Handler()
    dispatcher.subscribe("/data", domain_of, handler)
    fire(store, "/data/7/a", "/data/8/a")
    calls = [handler.called(), handler.called()]
    for call in calls:
        call.go()
        idle.acquire()
    fire(store, "/data/9/a")
    last = handler.called()
    assert last.thread is calls[1].thread
    last.go()


def test_event_that_comes_as_a_worker_gives_up_is_handled(store: FakeStore, make: Make) -> None:
    giving_up, go_on = threading.Semaphore(0), threading.Semaphore(0)
    called = []

    def wait(wake: threading.Lock) -> bool:
        called.append(not wake.locked())
        giving_up.release()
        go_on.acquire()
        return False

    dispatcher, handler = make(wait=wait), Handler()
    dispatcher.subscribe("/data", domain_of, handler)
    fire(store, "/data/7/a")
    first = handler.called()
    first.go()
    giving_up.acquire()
    fire(store, "/data/7/b")
    go_on.release(2)
    second = handler.called()
    assert (second.event.path, second.thread) == ("/data/7/b", first.thread)
    second.go()
    second.thread.join()
    assert called == [False, False]  # one call, one event


def test_no_more_threads_than_running_handlers_and_one(store: FakeStore, make: Make) -> None:
    before = len(workers())
    dispatcher, handler = make(wait=for_ever), Handler()
    dispatcher.subscribe("/data", domain_of, handler)
    fire(store, *[f"/data/{domid}/{name}" for name in "ab" for domid in range(20)])
    calls = [handler.called() for _ in range(20)]
    assert len(workers()) - before <= 21
    for call in calls:
        call.go()
    for _ in range(20):
        handler.called().go()


def test_thread_that_the_system_refuses_is_counted_and_its_queue_waits(
    store: FakeStore, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    dispatcher, handler = make(wait=for_ever), Handler()
    dispatcher.subscribe("/data", domain_of, handler)
    fire(store, "/data/7/a")
    first = handler.called()

    def refuse(worker: Worker) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(Worker, "start", refuse)
    fire(store, "/data/8/a", "/data/9/a")
    assert dispatcher.status().refused
    assert handler.idle()
    first.go()
    paths = []
    for _ in range(2):
        call = handler.called()
        paths.append(call.event.path)
        call.go()
    assert paths == ["/data/8/a", "/data/9/a"]


def test_without_enough_threads_domains_take_turns(
    store: FakeStore, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    dispatcher, handler = make(wait=for_ever), Handler()
    dispatcher.subscribe("/data", domain_of, handler)
    fire(store, "/data/7/a")
    first = handler.called()

    def refuse(worker: Worker) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(Worker, "start", refuse)
    fire(store, "/data/7/b", "/data/7/c", "/data/8/a", "/data/8/b")
    first.go()
    paths = []
    for _ in range(4):
        call = handler.called()
        paths.append(call.event.path)
        call.go()
    assert paths == ["/data/8/a", "/data/7/b", "/data/8/b", "/data/7/c"]
