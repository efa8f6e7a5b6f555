"""Scenarios: what goes wrong on the other side, as people write it down in YAML.

Used by tests: Guest(scenario=Scenario.load(path)). A file has these keys, all but `outcome`
optional:

    outcome: right | error    # of a driver that does what it promises, with every seed
    error: text               # part of the message, where the outcome is an error
    ring: {server-features: 1, start: [request index, reply index], piecemeal: true}
    store: [{fault: torn, at: {packets: 2}, times: 3, keep: 7, wait: 5}]   # of ringfaults.FAULTS
    disk: {fails: 3, latency: 1000000}                                     # of faults.Faults

The rule: a key or value that means nothing is an error that says where it is and what would do.
"""

from __future__ import annotations

import copy
import dataclasses
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from .faults import Faults
from .ringfaults import FAULTS, At, Crash, Fault

OUTCOMES = ("right", "error")
AT = [field.name for field in dataclasses.fields(At)]
KEYS = ("outcome", "error", "ring", "store", "disk")


class ScenarioError(Exception):
    """The file is not a scenario; the message names the place, and what was expected there."""


@dataclass(frozen=True)
class Ring:
    """Options of the store's ring, see RingTransport."""

    server_features: int = 0
    start: tuple[int, int] = (0, 0)
    piecemeal: bool = False


@dataclass(frozen=True)
class Scenario:
    """outcome: one of OUTCOMES; error: what the message of an error has to hold."""

    name: str
    outcome: str
    error: str = ""
    ring: Ring = field(default_factory=Ring)
    store: tuple[Fault, ...] = ()
    disk: dict[str, Any] = field(default_factory=dict)

    @staticmethod
    def load(path: Path) -> Scenario:
        """Read a file. Raises ScenarioError."""
        try:
            document = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (UnicodeDecodeError, yaml.YAMLError) as error:
            raise ScenarioError(f"{path}: {error}") from None
        return parse(document, path.stem, str(path))

    def faults(self) -> list[Fault]:
        """The faults of the store's ring, none of which has struck yet."""
        return copy.deepcopy(list(self.store))

    def recovery(self) -> str | None:
        """What the toolstack is to do when the guest has crashed: "soft-reset", "resume"."""
        return next((fault.recovery for fault in self.store if isinstance(fault, Crash)), None)


def parse(document: object, name: str, where: str) -> Scenario:
    """A scenario of what YAML says. where: for messages. Raises ScenarioError."""
    keys = _mapping(document, where)
    _known(keys, KEYS, where)
    outcome = keys.get("outcome")
    if outcome not in OUTCOMES:
        raise ScenarioError(f"{where}: outcome: {_or(OUTCOMES)} expected, {outcome!r} found")
    if "error" in keys and outcome != "error":
        raise ScenarioError(f"{where}: error: only with outcome: error")
    ring = _fill(Ring, _mapping(keys.get("ring", {}), f"{where}: ring"), f"{where}: ring")
    entries = keys.get("store", [])
    if not isinstance(entries, list):
        raise ScenarioError(f"{where}: store: a list expected, {entries!r} found")
    store = tuple(_fault(entry, f"{where}: store[{i}]") for i, entry in enumerate(entries))
    disk = _mapping(keys.get("disk", {}), f"{where}: disk")
    _fill(Faults, disk, f"{where}: disk")
    options = {key.replace("-", "_"): value for key, value in disk.items()}
    return Scenario(name, outcome, str(keys.get("error", "")), ring, store, options)


def _mapping(value: object, where: str) -> dict[str, Any]:
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise ScenarioError(f"{where}: keys and values expected, {value!r} found")
    return value


def _or(names: typing.Iterable[str]) -> str:
    return " or ".join(sorted(names))


def _known(keys: dict[str, Any], known: typing.Collection[str], where: str) -> None:
    for key in keys:
        if key not in known:
            raise ScenarioError(f"{where}: {key!r} is not known; {', '.join(sorted(known))} are")


def _fault(entry: object, where: str) -> Fault:
    keys = dict(_mapping(entry, where))
    name = keys.pop("fault", None)
    if not isinstance(name, str) or name not in FAULTS:
        known = ", ".join(sorted(FAULTS))
        raise ScenarioError(f"{where}: fault: {name!r} is not known; {known} are")
    where = f"{where}: {name}"
    if "at" in keys:
        at = _mapping(keys["at"], f"{where}: at")
        if len(at) != 1:
            raise ScenarioError(f"{where}: at: one of {_or(AT)} expected, {at} found")
        keys["at"] = _fill(At, at, f"{where}: at")
    return _fill(FAULTS[name], keys, where)


T = typing.TypeVar("T")


def _fill(kind: type[T], keys: dict[str, Any], where: str) -> T:
    """An object of a dataclass, of keys that are its fields' names with hyphens."""
    hints = typing.get_type_hints(kind)
    fields = {f.name: f for f in dataclasses.fields(kind) if f.name != "struck"}  # type: ignore[arg-type]
    _known(keys, [name.replace("_", "-") for name in fields], where)
    values = {}
    for name, this in fields.items():
        key = name.replace("_", "-")
        if key in keys:
            values[name] = _value(hints[name], keys[key], f"{where}: {key}")
        elif this.default is this.default_factory is dataclasses.MISSING:
            raise ScenarioError(f"{where}: {key} is missing")
    return kind(**values)


def _value(hint: Any, value: Any, where: str) -> Any:
    """A value that fits a field's type."""
    choices = typing.get_args(hint)
    if typing.get_origin(hint) is typing.Literal:
        if value not in choices:
            raise ScenarioError(f"{where}: {_or(choices)} expected, {value!r} found")
    elif hint is At:
        return value
    elif typing.get_origin(hint) is tuple:
        if not isinstance(value, list) or [type(item) for item in value] != list(choices):
            raise ScenarioError(f"{where}: {len(choices)} numbers expected, {value!r} found")
        return tuple(value)
    else:
        wanted = bool if hint is bool else int
        if type(value) is not wanted:
            what = "true or false" if wanted is bool else "a number"
            raise ScenarioError(f"{where}: {what} expected, {value!r} found")
        if wanted is int and value < 0 and not where.endswith(": add"):
            raise ScenarioError(f"{where}: a number from 0 on expected, {value} found")
    return value
