"""Any interleaving, step by step, against a model of what each queue holds.

The machine decides when each handler ends, so that after every step the model says exactly which
handlers have been entered, with which events. In the model a queue is a list; no locks, no threads.
"""

from __future__ import annotations

import queue
import threading
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from watches.fakes import Call, FakeStore, domain_of

from pvdump.watches.dispatcher import Dispatcher, Subscription
from pvdump.watches.domains import INTRODUCED, RELEASED
from pvdump.watches.queue import DomainIdentity, Event

LIMIT = 3
DOMIDS = st.sampled_from([1, 2])
WHOSE = st.sampled_from([None, 1, 2])
NAMES = st.sampled_from("abcd")
FOLLOWER = -1


@dataclass(eq=False)
class Model:
    """A queue. entries: (subscriber, path, lost); inside: what is being handled, and the call."""

    domid: int | None
    known: bool = False
    entries: list[tuple[int, str, int]] = field(default_factory=list)
    inside: tuple[int, str, int] | None = None
    call: Call | None = None
    domain: DomainIdentity | None = None  # as its events named it

    def put(self, who: int, path: str) -> None:
        if any(entry[:2] == (who, path) and not entry[2] for entry in self.entries):
            return
        if len(self.entries) < LIMIT or path.startswith("@"):
            self.entries.append((who, path, 0))
        else:
            self.lose(who, 1)

    def lose(self, who: int, count: int) -> None:
        for n, (other, path, lost) in enumerate(self.entries):
            if other == who and lost:
                self.entries[n] = (who, path, lost + count)
                return
        self.entries.append((who, "/data", count))


class Waiting(threading.Condition):
    """Says when somebody begins to wait."""

    def __init__(self, lock: threading.Lock) -> None:
        super().__init__(lock)
        self.begun = threading.Semaphore(0)

    def wait(self, timeout: float | None = None) -> bool:
        self.begun.release()
        return super().wait(timeout)


class Machine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.store = FakeStore()
        self.dispatcher = Dispatcher(self.store, limit=LIMIT)
        self.waiting = self.dispatcher._ended = Waiting(self.dispatcher._lock)
        self.entered: queue.SimpleQueue[tuple[int, Call]] = queue.SimpleQueue()
        self.subscriptions: dict[int, Subscription] = {}
        self.next = 0
        self.nobody = Model(None)
        self.models: dict[int, Model] = {}
        self.leaving: list[Model] = []
        self.vm = 0
        self.had: set[int] = set()  # domids that were in use once
        self.seen: dict[
            int, list[DomainIdentity]
        ] = {}  # of each domid, the domains that were there
        self.dispatcher.follow(self.told(INTRODUCED), self.told(RELEASED))

    def told(self, path: str) -> Any:
        def tell(domain: DomainIdentity) -> None:
            self.enter(FOLLOWER, Event(path, "", domain))

        return tell

    def enter(self, who: int, event: Event) -> None:
        call = Call(event)
        self.entered.put((who, call))
        call.stay()

    def all(self) -> list[Model]:
        return [self.nobody, *self.models.values(), *self.leaving]

    def of(self, domid: int | None) -> Model:
        return self.nobody if domid is None else self.models.setdefault(domid, Model(domid))

    def proceed(self) -> None:
        """The handlers that the model says are entered now are, and no others."""
        expected = {}
        for model in self.all():
            if model.inside is None and model.entries:
                model.inside = model.entries.pop(0)
                key = (model.domid, *model.inside)
                expected.setdefault(key, []).append(model)
        for _ in range(sum(map(len, expected.values()))):
            who, call = self.entered.get()
            event = call.event
            key = (event.domain and event.domain.domid, who, event.path, event.lost)
            assert expected.get(key), f"{key} was handled; expected one of {list(expected)}"
            # Two domains of one domid may be entered with the same event: the known one is later.
            same = sorted(expected[key], key=lambda model: model.domain != event.domain)
            model = same[0]
            expected[key].remove(model)
            model.call = call
            assert model.domain in (None, event.domain)
            if model.domain is None and event.domain is not None and model.known:
                domains = self.seen.setdefault(event.domain.domid, [])
                assert event.domain not in domains, "the new domain is taken for an old one"
                domains.append(event.domain)
            if model.known or model in self.leaving:
                model.domain = event.domain

    @invariant()
    def nothing_else_is_handled(self) -> None:
        assert self.entered.empty()

    def refresh(self) -> None:
        self.dispatcher._refresh(Event(RELEASED, "", None))

    @rule(domid=WHOSE, name=NAMES)
    def fire(self, domid: int | None, name: str) -> None:
        path = f"/other/{name}" if domid is None else f"/data/{domid}/{name}"
        for who in self.subscriptions:
            self.of(domid).put(who, path)
        self.store.fire(path, "/data")
        self.proceed()

    @rule(data=st.data())
    @precondition(lambda self: any(model.inside for model in self.all()))
    def end_a_handler(self, data: st.DataObject) -> None:
        model = data.draw(st.sampled_from([model for model in self.all() if model.inside]))
        self.end(model)
        self.proceed()

    def end(self, model: Model) -> None:
        assert model.call is not None
        model.call.go()
        model.inside = model.call = None
        if not model.entries:
            self.forget(model)

    def forget(self, model: Model) -> None:
        if model in self.leaving:
            self.leaving.remove(model)
        elif model.domid is not None and not model.known:
            del self.models[model.domid]

    @rule()
    @precondition(lambda self: len(self.subscriptions) < 3)
    def subscribe(self) -> None:
        who = self.next
        self.next += 1
        self.subscriptions[who] = self.dispatcher.subscribe(
            "/data", domain_of, lambda event: self.enter(who, event), f"subscriber {who}"
        )

    @rule(data=st.data())
    @precondition(lambda self: self.subscriptions)
    def unsubscribe(self, data: st.DataObject) -> None:
        who = data.draw(st.sampled_from(sorted(self.subscriptions)))
        subscription = self.subscriptions.pop(who)
        inside = [model for model in self.all() if model.inside and model.inside[0] == who]
        for model in self.all():
            model.entries = [entry for entry in model.entries if entry[0] != who]
        closing = threading.Thread(target=subscription.close)
        closing.start()
        if inside:
            self.waiting.begun.acquire()  # so its events are dropped
        for number, model in enumerate(inside):
            assert closing.is_alive(), "closed while a handler was inside"
            self.end(model)
            if number < len(inside) - 1:
                self.waiting.begun.acquire()
        closing.join()
        while self.waiting.begun.acquire(blocking=False):
            pass
        self.proceed()

    @rule(domid=DOMIDS)
    def create(self, domid: int) -> None:
        if (model := self.models.get(domid)) and model.known:
            return
        self.appear(domid, Counter())
        self.vm += 1
        self.store.nodes[f"/local/domain/{domid}/vm"] = b"/vm/%d" % self.vm
        self.refresh()
        self.proceed()

    @rule(domid=DOMIDS)
    @precondition(lambda self: any(model.known for model in self.models.values()))
    def destroy(self, domid: int) -> None:
        if not self.of(domid).known:
            return
        self.vanish(domid)
        del self.store.nodes[f"/local/domain/{domid}/vm"]
        self.refresh()
        self.proceed()

    @rule(domid=DOMIDS)
    def replace(self, domid: int) -> None:
        model = self.models.get(domid)
        if model is None or not model.known:
            return
        self.appear(domid, self.vanish(domid))
        self.vm += 1
        self.store.nodes[f"/local/domain/{domid}/vm"] = b"/vm/%d" % self.vm
        self.refresh()
        self.proceed()

    def appear(self, domid: int, losses: Counter[int]) -> None:
        early = self.models.get(domid)
        if early and domid in self.had:
            losses = self.leave(early)
        model = self.of(domid)
        model.known = True
        self.had.add(domid)
        model.put(FOLLOWER, INTRODUCED)
        for who, count in losses.items():
            model.lose(who, count)

    def vanish(self, domid: int) -> Counter[int]:
        model = self.models[domid]
        told = (FOLLOWER, INTRODUCED, 0) not in model.entries
        losses = self.leave(model)
        if told:
            model.put(FOLLOWER, RELEASED)
        if model not in self.leaving and model.entries:
            self.leaving.append(model)
        return losses

    def leave(self, model: Model) -> Counter[int]:
        """It is gone: drop its events, count them for whom they may matter."""
        assert model.domid is not None
        del self.models[model.domid]
        model.known = False
        losses: Counter[int] = Counter()
        for who, _, lost in model.entries:
            if who != FOLLOWER:
                losses[who] += lost or 1
        model.entries = []
        if model.inside:
            self.leaving.append(model)
        return losses

    @rule()
    def end_all_handlers(self) -> None:
        while inside := [model for model in self.all() if model.inside]:
            for model in inside:
                self.end(model)
            self.proceed()

    def teardown(self) -> None:
        Call.free([self.dispatcher])


Machine.TestCase.settings = settings(deadline=None, max_examples=60, stateful_step_count=60)
test_dispatcher_does_what_the_model_does = Machine.TestCase
