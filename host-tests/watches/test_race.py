"""Threads that run freely: what holds whatever the interleaving was.

The interpreter switches threads as often as it can; the seed draws what is done, not when.
"""

from __future__ import annotations

import random
import sys
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator

import pytest
from watches.fakes import FakeStore, Followed, domain_of

from pvdump.watches.dispatcher import Dispatcher
from pvdump.watches.queue import DomainIdentity, Event

EVENTS = 2000
DOMIDS = range(8)


@pytest.fixture(autouse=True)
def switch_often() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


class Recorder:
    """A handler that notes what it is called with; each event's path ends with its number."""

    def __init__(self) -> None:
        self.seen: dict[DomainIdentity | None, list[int]] = defaultdict(list)
        self.inside: set[DomainIdentity | None] = set()
        self.overlaps: list[DomainIdentity | None] = []
        self.after_close: list[Event] = []
        self.lost = 0
        self.closed = False
        self.all_seen = threading.Event()

    def __call__(self, event: Event) -> None:
        if event.domain in self.inside:
            self.overlaps.append(event.domain)
        self.inside.add(event.domain)
        if self.closed:
            self.after_close.append(event)
        self.lost += event.lost
        name = event.path.rpartition("/")[2]
        if name == "end":
            self.all_seen.set()
        elif name.isdigit():
            self.seen[event.domain].append(int(name))
        self.inside.discard(event.domain)


@pytest.mark.parametrize("seed", range(5))
def test_order_is_kept_and_nothing_is_lost(
    store: FakeStore, make: Callable[..., Dispatcher], seed: int
) -> None:
    draw = random.Random(seed)
    dispatcher, recorder = make(limit=EVENTS), Recorder()
    dispatcher.subscribe("/data", domain_of, recorder)
    fired = defaultdict(list)
    for number in range(EVENTS):
        domid = draw.choice(DOMIDS)
        fired[domid].append(number)
        store.fire(f"/data/{domid}/{number}", "/data")
    for domid in DOMIDS:
        recorder.all_seen.clear()
        store.fire(f"/data/{domid}/end", "/data")
        recorder.all_seen.wait()
    assert {d.domid: numbers for d, numbers in recorder.seen.items() if d} == fired
    assert recorder.overlaps == []
    assert recorder.lost == 0


@pytest.mark.parametrize("seed", range(5))
def test_full_queues_count_every_event_that_was_not_handled(
    store: FakeStore, make: Callable[..., Dispatcher], seed: int
) -> None:
    draw = random.Random(seed)
    dispatcher, recorder = make(limit=5), Recorder()
    dispatcher.subscribe("/data", domain_of, recorder)
    for number in range(EVENTS):
        store.fire(f"/data/{draw.choice(DOMIDS)}/{number}", "/data")
    for domid in DOMIDS:
        last = Recorder()
        subscription = dispatcher.subscribe(f"/data/{domid}/end", domain_of, last)
        while not last.all_seen.is_set():
            store.fire(f"/data/{domid}/end")  # its queue may still be full
        subscription.close()
    assert sum(map(len, recorder.seen.values())) + recorder.lost == EVENTS
    assert all(numbers == sorted(numbers) for numbers in recorder.seen.values())
    assert recorder.overlaps == []


@pytest.mark.parametrize("seed", range(5))
def test_nothing_is_handled_once_close_has_returned(
    store: FakeStore, make: Callable[..., Dispatcher], seed: int
) -> None:
    draw = random.Random(seed)
    dispatcher = make()
    recorders = [Recorder() for _ in range(20)]
    subscriptions = [dispatcher.subscribe("/data", domain_of, each) for each in recorders]
    stop = threading.Event()

    def close() -> None:
        for subscription, recorder in zip(subscriptions, recorders, strict=True):
            subscription.close()
            recorder.closed = True
        stop.set()

    closing = threading.Thread(target=close)
    closing.start()
    number = 0
    while not stop.is_set():
        store.fire(f"/data/{draw.choice(DOMIDS)}/{number}", "/data")
        number += 1
    closing.join()
    dispatcher.close()
    assert [recorder.after_close for recorder in recorders] == [[]] * 20


@pytest.mark.parametrize("seed", range(5))
def test_no_event_of_an_old_domain_reaches_a_new_one(
    store: FakeStore, make: Callable[..., Dispatcher], seed: int
) -> None:
    draw = random.Random(seed)
    dispatcher, followed = make(limit=EVENTS), Followed()
    dispatcher.follow(followed.appeared, followed.vanished)
    wrong: list[tuple[Event, int]] = []

    def handle(event: Event) -> None:
        life = event.path.split("/")[3]
        assert event.domain is not None
        if life.isdigit() and int(life) != event.domain.generation:
            wrong.append((event, int(life)))

    dispatcher.subscribe("/data", domain_of, handle)
    for life in range(1, 30):
        store.create(7, f"/vm/{life}")
        assert followed.next() == ("appeared", 7, life)
        for number in range(draw.randrange(50)):
            store.fire(f"/data/7/{life}/{number}", "/data")
        store.destroy(7)
        assert followed.next() == ("vanished", 7, life)
    assert wrong == []
