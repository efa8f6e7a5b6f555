"""The text that pvboot runs: a script, and behind it the modules that it imports.

Made by `pvdump script`, by `./build.py run` and by the lab. Its layout is that of
pvfw/shell/sections.py. The rule: modules are named as Python names them, a package by its folder.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from pvfw.errors import DumpError
from pvfw.shell.sections import CONTENT_MAX, LINE_MAX, MARK, split

MAGIC = b"#!pvboot"


class ScriptError(DumpError):
    """A script, or a module of it, cannot be used; the message says which and why."""


def read(path: Path) -> bytes:
    """Read a script or a module.

    Raises:
        ScriptError: it is no file, is too large or no text.
        OSError: it cannot be read.
    """
    if path.exists() and not path.is_file():
        raise ScriptError(f"{path} is no file")
    with path.open("rb") as stream:
        raw = stream.read(CONTENT_MAX + 1)
    if len(raw) > CONTENT_MAX:
        raise ScriptError(f"{path} has more than {CONTENT_MAX >> 20} MiB")
    try:
        raw.decode()
    except UnicodeDecodeError as error:
        raise ScriptError(f"{path}: byte {error.start} is no UTF-8: no text") from None
    if b"\0" in raw:
        raise ScriptError(f"{path}: byte {raw.index(0)} is a NUL: no text")
    return raw


def modules(places: Iterable[Path]) -> dict[str, bytes]:
    """Read modules and packages.

    Args:
        places: a file, which is a module; or a folder, a package with all that is below it.

    Returns:
        their texts by path, such as "suite/case.py".

    Raises:
        ScriptError: one cannot be used, has none, or has the name of another.
        OSError: one cannot be read.
    """
    found: dict[str, bytes] = {}
    for place in places:
        place.stat()  # raises OSError
        base = place.resolve().parent
        files = sorted(place.resolve().rglob("*.py")) if place.is_dir() else [base / place.name]
        if not files:
            raise ScriptError(f"there is no module in {place}: no name there ends in .py")
        for file in files:
            name = file.relative_to(base).as_posix()
            if file.suffix != ".py":
                raise ScriptError(f"{file}: a name that ends in .py expected")
            words = name[: -len(".py")].split("/")
            is_plain = name.isascii() and len(name) <= LINE_MAX
            if not is_plain or not all(map(str.isidentifier, words)):
                raise ScriptError(f"{file} cannot be imported by its name")
            if name in found:
                raise ScriptError(f"two modules have the name {name}")
            found[name] = read(file)
    return found


def compose(script: bytes, texts: Mapping[str, bytes], name: str = "the script") -> bytes:
    """Return the one text of a script and its modules.

    Args:
        script: as it is; it need not begin with #!pvboot.
        texts: as modules() returns them.
        name: the script's, for messages.

    Raises:
        ScriptError: it is empty or too large, or a line of it would be taken for a module's.
    """
    if not script.strip():
        raise ScriptError(f"{name} is empty")
    parts = [script if script.startswith(MAGIC) else MAGIC + b"\n" + script]
    for path, text in texts.items():
        parts.append(MARK[1:] + path.encode() + b"\n" + text)
    whole = b"".join(part if part.endswith(b"\n") else part + b"\n" for part in parts)
    if len(whole) > CONTENT_MAX:
        raise ScriptError(f"{name} and its modules have more than {CONTENT_MAX >> 20} MiB")
    if list(split(whole)[1]) != list(texts):
        line = MARK.decode().strip()
        raise ScriptError(f"{name}, or a module, has a line that begins with {line}")
    return whole
