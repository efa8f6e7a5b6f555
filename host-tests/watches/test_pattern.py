"""The paths that a pattern stands for, their domains, and the existing ones among them."""

from __future__ import annotations

import pytest
from watches.fakes import FakeStore

from pvdump.watches.dispatcher import NOBODY
from pvdump.watches.pattern import Pattern, PatternError

STATE = Pattern("/local/domain/*/data/state")
DISKS = Pattern("/local/domain/0/backend/vbd/*/*/state")


@pytest.mark.parametrize(
    ("pattern", "path", "domid"),
    [
        (STATE, "/local/domain/7/data/state", 7),
        (STATE, "/local/domain/7/data", 7),
        (STATE, "/local/domain/7", 7),
        (STATE, "/local/domain", None),
        (STATE, "/local/domain/7/data/state/below", NOBODY),
        (STATE, "/local/domain/7/data/status", NOBODY),
        (STATE, "/local/domain/seven/data/state", NOBODY),
        (STATE, "/local/domain/32752/data/state", NOBODY),
        (STATE, "/vm/7/data/state", NOBODY),
        (DISKS, "/local/domain/0/backend/vbd/7/51712/state", 7),
        (DISKS, "/local/domain/0/backend/vbd/7/51712", 7),
        (DISKS, "/local/domain/0/backend/vif/7/0/state", NOBODY),
    ],
)
def test_path_belongs_to_the_domain_at_the_first_star(
    pattern: Pattern, path: str, domid: int | None
) -> None:
    assert pattern.domain_of(path, "token") == domid


def test_the_watch_is_above_the_first_star() -> None:
    assert (STATE.base, DISKS.base) == ("/local/domain", "/local/domain/0/backend/vbd")


def test_only_a_path_of_full_length_matches() -> None:
    assert STATE.matches("/local/domain/7/data/state")
    assert not STATE.matches("/local/domain/7/data")


def test_find_gives_every_node_of_a_domain(store: FakeStore) -> None:
    base = "/local/domain/0/backend/vbd/7"
    store.nodes = {
        f"{base}/51712/state": b"4",
        f"{base}/51728/state": b"2",
        f"{base}/51744/online": b"1",
        "/local/domain/0/backend/vbd/8/51712/state": b"6",
    }
    assert DISKS.find(store, 7) == [(f"{base}/51712/state", b"4"), (f"{base}/51728/state", b"2")]
    assert DISKS.find(store, 9) == []
    assert sorted(DISKS.domids(store)) == [7, 8]
    assert STATE.find(store, 7) == []


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("local/domain/*", "absolute"),
        ("/local/domain/7", "none of its names"),
        ("/*/data", "before the first"),
        ("/local/domain/*/da ta", "'da ta' is neither"),
        ("/local/domain/7*/data", "'7*' is neither"),
        ("/local/domain/*/", "'' is neither"),
        ("/local/*/" + "a" * 4000, "absolute"),
    ],
)
def test_pattern_that_is_none_is_refused_with_the_reason(text: str, wrong: str) -> None:
    with pytest.raises(PatternError, match=wrong.replace("*", r"\*")):
        Pattern(text)
