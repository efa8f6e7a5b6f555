"""Scenarios: faults of the other side, written in YAML.

Used by tests: Guest(scenario=Scenario.load(path)). A file has these keys, all but `outcome`
optional:

    outcome: right | error    # of a driver that does what it promises, with every seed
    error: text               # part of the message, where the outcome is an error
    ring: {server-features: 1, start: [request index, reply index], piecemeal: true,
           fragile: true}
    store: [{fault: torn, at: {packets: 2}, times: 3, keep: 7, wait: 5}]   # of ringfaults.FAULTS
    disk: {fails: 3, latency: 1000000}                                     # of faults.Faults

The rule: a key or value that means nothing is an error that says where it is and what would do.
"""

from __future__ import annotations

import copy
import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml

from pvdump.service import records

from .faults import Faults
from .ringfaults import FAULTS, At, Crash, Fault

Outcome = Literal["right", "error"]
AT = sorted(field.name for field in dataclasses.fields(At))
T = TypeVar("T")


class ScenarioError(Exception):
    """The file is not a scenario; the message names the place, and what was expected there."""


@dataclass(frozen=True)
class Ring:
    """Options of the store's ring, see RingTransport."""

    server_features: int = 0
    start: tuple[int, int] = (0, 0)
    piecemeal: bool = False
    fragile: bool = False


@dataclass(frozen=True)
class Scenario:
    """A scenario: the faults of a run, and the outcome that a driver must have.

    error: text that the message of an error must contain.
    """

    name: str
    outcome: Outcome
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
        """The toolstack's step after the guest has crashed: "soft-reset", "resume" or None."""
        return next((fault.recovery for fault in self.store if isinstance(fault, Crash)), None)


@dataclass(frozen=True)
class Document:
    """The fields of a scenario's file, before its faults are checked."""

    outcome: Outcome
    error: str = ""
    ring: Ring = field(default_factory=Ring)
    store: list[Any] = field(default_factory=list)
    disk: dict[str, Any] = field(default_factory=dict)


def parse(document: object, name: str, where: str) -> Scenario:
    """Make a scenario of parsed YAML.

    Args:
        name: of the scenario.
        where: begins each message.

    Raises:
        ScenarioError: it says something that means nothing.
    """
    found = _build(Document, document, f"{where}: ")
    if found.error and found.outcome != "error":
        raise ScenarioError(f"{where}: error: only with outcome: error")
    store = tuple(_fault(entry, f"{where}: store[{i}]") for i, entry in enumerate(found.store))
    _build(Faults, found.disk, f"{where}: disk: ")
    options = {key.replace("-", "_"): value for key, value in found.disk.items()}
    return Scenario(name, found.outcome, found.error, found.ring, store, options)


def _fault(entry: object, where: str) -> Fault:
    name = entry.get("fault") if isinstance(entry, dict) else None
    if not isinstance(entry, dict) or not isinstance(name, str) or name not in FAULTS:
        known = ", ".join(sorted(FAULTS))
        raise ScenarioError(f"{where}: fault: {name!r} is not known; {known} are")
    keys = {key: value for key, value in entry.items() if key != "fault"}
    at = keys.get("at")
    if isinstance(at, dict) and len(at) != 1:
        one = " or ".join(AT)
        raise ScenarioError(f"{where}: {name}: at: one of {one} expected, {at} found")
    return _build(FAULTS[name], keys, f"{where}: {name}: ")


def _build(kind: type[T], keys: object, where: str) -> T:
    """Make an object of a dataclass, of keys that are its fields' names with hyphens."""
    try:
        return records.build(kind, keys, where, lambda name: name.replace("_", "-"))
    except ValueError as error:
        raise ScenarioError(str(error)) from None
