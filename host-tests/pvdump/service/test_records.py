"""Dataclasses out of what a stranger wrote: each field's type, and where it is wrong."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from pvdump.service.records import build


@dataclass
class Part:
    """A part of the thing."""

    name: str


@dataclass
class Thing:
    """A field of each kind."""

    count: int = field(default=8, metadata={"least": 8})
    change: int = field(default=0, metadata={"least": None})
    seconds: float = 0.0
    on: bool = False
    kind: Literal["a", "b"] = "a"
    domid: int | None = None
    file: Path = Path()
    part: Part = field(default_factory=lambda: Part("x"))
    parts: list[Part] = field(default_factory=list)
    names: tuple[str, ...] = ()
    start: tuple[int, int] = (0, 0)
    counts: dict[str, int] = field(default_factory=dict)
    extra: Any = None
    made_here: int = field(default=7, init=False)


def thing(**fields: object) -> Thing:
    return build(Thing, fields, "x.yaml: ")


def test_missing_fields_have_their_defaults() -> None:
    assert thing() == Thing()


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("count", 9, 9),
        ("change", -3, -3),
        ("seconds", 2, 2.0),
        ("on", True, True),
        ("kind", "b", "b"),
        ("domid", None, None),
        ("domid", 7, 7),
        ("file", "a/b", Path("a/b")),
        ("part", {"name": "y"}, Part("y")),
        ("part", Part("z"), Part("z")),
        ("parts", [{"name": "y"}], [Part("y")]),
        ("names", ["a", "b"], ("a", "b")),
        ("start", [1, 2], (1, 2)),
        ("counts", {"read": 3}, {"read": 3}),
        ("extra", [object], [object]),
    ],
)
def test_value_of_each_kind_is_taken(name: str, value: object, expected: object) -> None:
    assert getattr(thing(**{name: value}), name) == expected


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("count", 7, "count: a number from 8 on expected, 7 found"),
        ("count", "9", "count: a number expected, '9' found"),
        ("count", True, "count: a number expected, True found"),
        ("count", 9.0, "count: a number expected, 9.0 found"),
        ("count", None, "count: a number expected, None found"),
        ("seconds", True, "seconds: a number expected, True found"),
        ("on", 1, "on: true or false expected, 1 found"),
        ("kind", "c", "kind: a or b expected, 'c' found"),
        ("kind", ["a"], "kind: a or b expected, ['a'] found"),
        ("domid", -1, "domid: a number from 0 on expected, -1 found"),
        ("file", 5, "file: a name expected, 5 found"),
        ("part", [], "part: an object with name expected, [] found"),
        ("part", {}, "part: name is missing"),
        ("parts", {"name": "y"}, "parts: a list expected, {'name': 'y'} found"),
        ("parts", [{"name": "y"}, {"name": 3}], "parts[1]: name: text expected, 3 found"),
        ("names", "ab", "names: a list expected, 'ab' found"),
        ("names", ["a", 4], "names[1]: text expected, 4 found"),
        ("start", [1], "start: 2 of them expected, [1] found"),
        ("counts", [], "counts: keys and values expected, [] found"),
        ("counts", {"read": -1}, "counts['read']: a number from 0 on expected, -1 found"),
        ("made_here", 8, "'made_here' is not known"),
        ("other", 8, "'other' is not known; change, count, "),
        ("domid", "x" * 1000, f"domid: a number expected, '{'x' * 59}... found"),
    ],
)
def test_wrong_value_is_told_with_its_place(name: str, value: object, message: str) -> None:
    with pytest.raises(ValueError) as error:
        thing(**{name: value})
    assert str(error.value).startswith(f"x.yaml: {message}")


@pytest.mark.parametrize("value", [None, [], "text", {1: 2}])
def test_what_is_no_object_is_told(value: object) -> None:
    with pytest.raises(ValueError, match=r"^an object with name expected, "):
        build(Part, value)


def test_keys_may_be_spelt_in_another_way() -> None:
    assert build(Thing, {"COUNT": 9}, key=str.upper).count == 9
