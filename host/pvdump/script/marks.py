"""What MicroPython reads otherwise in the marks of a text: prefixes of strings, brackets of `with`.

Used by check.py for what no syntax tree shows. The rule: as there.
"""

from __future__ import annotations

import io
import tokenize
from collections.abc import Iterator

PREFIXES = ("", "b", "r", "u", "f", "rb", "br", "rf", "fr")
QUOTES = "'\""
IGNORED = (tokenize.NL, tokenize.COMMENT, tokenize.INDENT, tokenize.DEDENT)
# Python 3.12 and newer: an f-string is many tokens.
BEGIN = getattr(tokenize, "FSTRING_START", None)
END = getattr(tokenize, "FSTRING_END", None)


def problems(text: str) -> Iterator[tuple[int, str]]:
    """Give (line, what is wrong there) of a text that CPython can parse."""
    if "\f" in text:
        yield text[: text.index("\f")].count("\n") + 1, "a form feed: MicroPython knows none"
    tokens = [
        token
        for token in tokenize.generate_tokens(io.StringIO(text).readline)
        if token.type not in IGNORED
    ]
    yield from _strings(tokens)
    yield from _withs(tokens)


def _prefix(string: str) -> str:
    return string[: min(string.index(quote) for quote in QUOTES if quote in string)]


def _strings(tokens: list[tokenize.TokenInfo]) -> Iterator[tuple[int, str]]:
    before = ""  # of the token before: "f" of an f-string, "{" of a plain one with a brace
    depth = 0
    for token in tokens:
        kind = ""
        if token.type == tokenize.STRING or token.type == BEGIN:
            prefix = _prefix(token.string)
            if prefix not in PREFIXES:
                known = ", ".join(PREFIXES[1:])
                yield token.start[0], f"{prefix}'...': MicroPython's prefixes are {known}"
            if "\\N{" in token.string and "r" not in prefix.lower() and "b" not in prefix.lower():
                yield token.start[0], "\\N{...}: MicroPython knows no names of characters"
            is_formatted = "f" in prefix.lower()
            kind = "f" if is_formatted else "{" if set("{}") & set(token.string) else "plain"
            if not depth and {before, kind} == {"f", "{"}:
                yield (
                    token.start[0],
                    "a string with a brace beside an f-string is read as part of it",
                )
        depth += (token.type == BEGIN) - (token.type == END)
        before = "f" if token.type == END else kind


def _withs(tokens: list[tokenize.TokenInfo]) -> Iterator[tuple[int, str]]:
    for at, token in enumerate(tokens[:-1]):
        if token.type != tokenize.NAME or token.string != "with" or tokens[at + 1].string != "(":
            continue
        end, words = _bracketed(tokens, at + 1)
        # `with (a, b):` has two items for CPython, and for MicroPython one, a tuple.
        if "as" in words or ("," in words and tokens[end + 1].string == ":"):
            yield token.start[0], "a with whose items stand in brackets: MicroPython has none"


def _bracketed(tokens: list[tokenize.TokenInfo], at: int) -> tuple[int, set[str]]:
    """Return where the bracket at a place ends, and the words in it, none of brackets within."""
    depth = 0
    words: set[str] = set()
    for number, token in enumerate(tokens[at:], at):
        if token.type == tokenize.OP and token.string in "([{":
            depth += 1
        if token.type == tokenize.OP and token.string in ")]}":
            depth -= 1
        if not depth:
            return number, words
        if depth == 1:
            words.add(token.string)
    return len(tokens) - 2, words
