"""The settings of an xl.cfg file, as far as pvdump needs them: strings and numbers.

Used by guestfiles.py and enable.py. The rule: a file is changed in one setting and is otherwise
left as it is, byte for byte; of several settings of one name the last one counts, as with xl.
Source: Xen tools/libs/util/libxlu_cfg_l.l, libxlu_cfg_y.y.
"""

from __future__ import annotations

import re
from typing import NamedTuple

# What a file is made of. A comment ends with its line; a string may have its own quote escaped.
TOKENS = re.compile(
    r"""(?P<space>[ \t\r]+|\\\n)|(?P<comment>\#[^\n]*)|(?P<end>[\n;])
    |(?P<string>'(?:[^'\\\n]|\\.)*'|"(?:[^"\\\n]|\\.)*")
    |(?P<name>[A-Za-z_][A-Za-z_0-9]*)|(?P<number>-?0x[0-9A-Fa-f]+|-?[0-9]+)
    |(?P<mark>\+=|[=\[\],])""",
    re.VERBOSE,
)


class BadFile(Exception):
    """The file is not one that xl reads; the message has the line."""


class Setting(NamedTuple):
    """A setting of a string or number.

    Attributes:
        name: such as "on_soft_reset".
        value: without quotes.
        begin, end: where its value stands in the text.
    """

    name: str
    value: str
    begin: int
    end: int


def settings(text: str) -> dict[str, Setting]:
    """Return the settings of a file by name. Raises BadFile."""
    found: dict[str, Setting] = {}
    depth, place = 0, 0
    line: list[re.Match[str]] = []  # the tokens of a setting
    while place < len(text):
        match = TOKENS.match(text, place)
        if match is None:
            number = text.count("\n", 0, place) + 1
            raise BadFile(f"line {number}: not as xl.cfg(5) has it")
        place = match.end()
        depth += {"[": 1, "]": -1}.get(match[0], 0)
        if match.lastgroup == "end" and depth <= 0:
            _take(line, found)
            line = []
        elif match.lastgroup not in ("space", "comment", "end"):
            line.append(match)
    _take(line, found)
    return found


def _take(line: list[re.Match[str]], found: dict[str, Setting]) -> None:
    if len(line) == 3 and line[0].lastgroup == "name" and line[1][0] == "=":
        name, _, value = line
        if value.lastgroup in ("string", "number"):
            text = value[0][1:-1] if value.lastgroup == "string" else value[0]
            found[name[0]] = Setting(name[0], text, value.start(), value.end())


def kind(found: dict[str, Setting]) -> str:
    """Return the type of a file's guest, hvm, pvh or pv, as xl takes it."""
    for name, value, means in (
        ("type", None, None),
        ("builder", "hvm", "hvm"),
        ("pvh", "1", "pvh"),
    ):
        setting = found.get(name)
        if setting is not None and value in (None, setting.value):
            return means or setting.value
    return "pv"


def changed(text: str, name: str, value: str) -> str:
    """Return a file's text with a setting changed, or added as its last line. Raises BadFile."""
    setting = settings(text).get(name)
    if setting is not None:
        return f'{text[: setting.begin]}"{value}"{text[setting.end :]}'
    end = "" if not text or text.endswith("\n") else "\n"
    return f'{text}{end}{name} = "{value}"\n'
