"""The log's lines about handlers that fail: few, and remembered for a bounded time."""

from __future__ import annotations

import pytest
from watches.fakes import Clock

from pvdump.service.complaints import KEPT, Complaints


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def lines() -> list[str]:
    return []


@pytest.fixture
def complaints(clock: Clock, lines: list[str]) -> Complaints:
    return Complaints(clock, lines.append)


def test_a_second_holds_one_line_and_the_next_says_how_many_it_did_not(
    complaints: Complaints, clock: Clock, lines: list[str]
) -> None:
    for _ in range(3):
        complaints.add(7, "fails")
        clock.advance(0.4)
    complaints.add(7, "fails")
    assert lines == ["fails", "fails (2 more were left out)"]


def test_who_complained_longest_ago_is_forgotten_where_there_are_too_many(
    complaints: Complaints, clock: Clock, lines: list[str]
) -> None:
    for whose in (0, 1, 0, 1):
        complaints.add(whose, "fails")
    for whose in range(2, KEPT + 1):
        complaints.add(whose, "fails")
    clock.advance(1)
    lines.clear()
    complaints.add(1, "fails")
    complaints.add(0, "fails")
    assert lines == ["fails (1 more were left out)", "fails"]
