"""Dataclasses out of JSON that a stranger may have written.

Used by whoever asks a status socket. The rule: every field is there and none else, each of its
type, a whole number from 0 on; what is wrong is told with its place.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from typing import Any, TypeVar

T = TypeVar("T")


def build(kind: type[T], value: Any, where: str = "") -> T:
    """An object of a dataclass. Raises ValueError."""
    hints = typing.get_type_hints(kind)
    names = [field.name for field in dataclasses.fields(kind)]  # type: ignore[arg-type]
    if not isinstance(value, dict) or value.keys() != set(names):
        raise ValueError(f"{where}expected an object with {', '.join(names)}")
    return kind(**{name: _field(hints[name], value[name], f"{where}{name}") for name in names})


def _field(hint: Any, value: Any, where: str) -> Any:
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin is types.UnionType:
        hint = next(part for part in parts if part is not types.NoneType)
        return None if value is None else _field(hint, value, where)
    if origin is list and isinstance(value, list):
        return [_field(parts[0], item, f"{where}[{i}]") for i, item in enumerate(value)]
    if origin is dict and isinstance(value, dict):
        return {key: _field(parts[1], item, f"{where}[{key!r}]") for key, item in value.items()}
    if dataclasses.is_dataclass(hint):
        return build(typing.cast("type[Any]", hint), value, f"{where}: ")
    accepted = (int, float) if hint is float else (origin or hint,)
    if type(value) not in accepted:
        name = (origin or hint).__name__
        raise ValueError(f"{where}: expected {name}, got {type(value).__name__}")
    if type(value) is int and value < 0:
        raise ValueError(f"{where}: expected a number from 0 on, got {value}")
    return value


def printable(text: str) -> str:
    """The text as a terminal may have it."""
    return "".join(c if c.isprintable() else "?" for c in text)
