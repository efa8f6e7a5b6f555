"""Makes dataclasses out of JSON or YAML from elsewhere.

Used by clients of a status socket, by the embedded Xen's scenarios and by the lab's guests. The
rules: each field has its type; a key that is no field, and a field without a default that is
missing, are refused; a message begins with the place.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar, Union

T = TypeVar("T")
# X | Y is a type of its own from Python 3.10 on.
UNIONS = (Union, getattr(types, "UnionType", Union))
NAMES = {int: "a number", float: "a number", bool: "true or false", str: "text", Path: "a name"}


def build(kind: type[T], value: Any, where: str = "", key: Callable[[str], str] = str) -> T:
    """Make an object of a dataclass.

    A field is a bool, int, float, str, Path, Any, Literal, an optional one of these, a list, tuple
    or dict of them, or another dataclass. A number is 0 at least; the field's metadata may have
    another bound, {"least": 8}, or none, {"least": None}. A field with init=False is no key.

    Args:
        kind: the dataclass.
        value: as parsed from JSON or YAML.
        where: begins each message.
        key: gives the key of a field's name.

    Raises:
        ValueError: the value is no such object.
    """
    hints = typing.get_type_hints(kind)
    fields = {key(one.name): one for one in dataclasses.fields(kind) if one.init}  # type: ignore[arg-type]
    if not isinstance(value, dict) or not all(isinstance(name, str) for name in value):
        raise ValueError(
            f"{where}an object with {', '.join(fields)} expected, {_show(value)} found"
        )
    for name in value:
        if name not in fields:
            raise ValueError(f"{where}{_show(name)} is not known; {', '.join(sorted(fields))} are")
    made = {}
    for name, one in fields.items():
        if name in value:
            least = one.metadata.get("least", 0)
            made[one.name] = _value(hints[one.name], value[name], f"{where}{name}", key, least)
        elif one.default is one.default_factory is dataclasses.MISSING:
            raise ValueError(f"{where}{name} is missing")
    return kind(**made)


def _value(hint: Any, value: Any, where: str, key: Callable[[str], str], least: int | None) -> Any:
    """Return the value as a field of this type has it."""
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any or (
        dataclasses.is_dataclass(hint) and isinstance(value, typing.cast(type, hint))
    ):
        return value
    if origin in UNIONS:
        hint = next(part for part in parts if part is not type(None))
        return None if value is None else _value(hint, value, where, key, least)
    if origin is typing.Literal:
        return value if value in parts else _refuse(where, _or(parts), value)
    if origin in (list, tuple):
        return _items(origin, parts, value, where, key, least)
    if origin is dict:
        if not isinstance(value, dict):
            _refuse(where, "keys and values", value)
        return {
            name: _value(parts[1], item, f"{where}[{_show(name)}]", key, least)
            for name, item in value.items()
        }
    if dataclasses.is_dataclass(hint):
        return build(typing.cast("type[Any]", hint), value, f"{where}: ", key)
    return _plain(hint, value, where, least)


def _items(
    origin: Any, parts: Any, value: Any, where: str, key: Callable[[str], str], least: int | None
) -> Any:
    if not isinstance(value, (list, tuple)):
        _refuse(where, "a list", value)
    if origin is tuple and parts[-1] is not Ellipsis and len(parts) != len(value):
        _refuse(where, f"{len(parts)} of them", value)
    # Of a tuple of two each has its own type; else all have the first one.
    hints = parts if origin is tuple and parts[-1] is not Ellipsis else [parts[0]] * len(value)
    return origin(
        _value(hint, item, f"{where}[{number}]", key, least)
        for number, (hint, item) in enumerate(zip(hints, value))
    )


def _plain(hint: Any, value: Any, where: str, least: int | None) -> Any:
    accepted = {float: (int, float), Path: (str, type(Path()))}.get(hint, (hint,))
    if type(value) not in accepted:
        _refuse(where, NAMES[hint], value)
    if type(value) is int and least is not None and value < least:
        _refuse(where, f"a number from {least} on", value)
    return hint(value)


def _refuse(where: str, expected: str, value: Any) -> typing.NoReturn:
    raise ValueError(f"{where}: {expected} expected, {_show(value)} found")


def _show(value: Any) -> str:
    """Return a value for a message, shortened because it may be of any length."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."


def _or(names: Iterable[Any]) -> str:
    return " or ".join(sorted(map(str, names)))
