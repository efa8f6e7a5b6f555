"""A dispatcher over a store in this process, with a clock that stands still."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from watches.fakes import Call, Clock, FakeStore

from pvdump.watches.dispatcher import Dispatcher


@pytest.fixture
def store() -> FakeStore:
    return FakeStore()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def make(store: FakeStore, clock: Clock) -> Iterator[Callable[..., Dispatcher]]:
    """Makes dispatchers, started, and closes them."""
    made: list[Dispatcher] = []

    def make(**options: object) -> Dispatcher:
        dispatcher = Dispatcher(store, clock=clock, **options)  # type: ignore[arg-type]
        made.append(dispatcher)
        dispatcher.start()
        return dispatcher

    yield make
    Call.free(made)


@pytest.fixture
def dispatcher(make: Callable[..., Dispatcher]) -> Dispatcher:
    return make()
