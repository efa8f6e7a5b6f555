"""Edits /etc/pvdump.yaml: a key gets another value, and comments and other keys stay as they are.

Used by plan.py. The rule: the edited text is read again, and must say what was meant and nothing
else.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Union

from pvfw.errors import DumpError

Value = Union[str, Sequence[str]]


def edited(text: str, values: Mapping[str, Value]) -> str:
    """Return the text of a settings' file with other values.

    Args:
        text: of the file.
        values: by key: a text, or a list of texts.

    Raises:
        DumpError: the file is of a form that cannot be edited, or PyYAML is not there.
    """
    try:
        import yaml
    except ImportError as error:
        raise DumpError(
            "the settings are edited with PyYAML: apt install python3-yaml || dnf install "
            "python3-pyyaml"
        ) from error

    for key, value in values.items():
        wanted = {**_content(yaml, text), key: value if isinstance(value, str) else list(value)}
        text = _with(yaml, text, key, value)
        try:
            as_meant = _content(yaml, text) == wanted
        except yaml.YAMLError:
            as_meant = False
        if not as_meant:
            raise DumpError(
                f"write `{_line(key, value)}` into the settings by hand: they are in a form that "
                "is not edited"
            )
    return text


def _content(yaml: Any, text: str) -> dict[str, Any]:
    found = yaml.load(text, Loader=yaml.BaseLoader)
    return found if isinstance(found, dict) else {}


def _with(yaml: Any, text: str, key: str, value: Value) -> str:
    node = yaml.compose(text, Loader=yaml.BaseLoader)
    for name, old in node.value if node is not None and node.id == "mapping" else ():
        if name.value == key:
            end = old.end_mark.index
            if old.id == "sequence" and not old.flow_style and old.value:
                # The mark is behind the comments that follow the list.
                end = old.value[-1].end_mark.index
            return text[: name.start_mark.index] + _line(key, value) + text[end:]
    # The line of a packaged file that shows the default.
    shown = re.search(rf"^#\s?{re.escape(key)}:.*$", text, re.MULTILINE)
    if shown:
        return text[: shown.start()] + _line(key, value) + text[shown.end() :]
    if text and not text.endswith("\n"):
        text += "\n"
    return f"{text}{_line(key, value)}\n"


def _line(key: str, value: Value) -> str:
    if isinstance(value, str):
        return f"{key}: {_quoted(value)}"
    return f"{key}: [{', '.join(_quoted(each) for each in value)}]"


def _quoted(value: str) -> str:
    """Return a text as YAML has it, in quotes where it needs them."""
    plain = value.replace("/", "").replace(":", "", 1).replace(".", "").replace("-", "")
    if plain.replace("_", "").isalnum() and value.isascii() and ": " not in value:
        return value
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
