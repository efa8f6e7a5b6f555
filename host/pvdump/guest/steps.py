"""The changes of a system that `pvdump setup` makes and `pvdump remove` takes back, one class each.

Used by plan.py, which makes them, and changes.py, which does them and keeps the record. The rules:
each says beforehand what it will do, and makes the entry of the record from which it can be undone;
the entry is saved before the change, so undoing a change that was not made changes nothing; what a
person has changed since is left, and said.
"""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Callable

from pvfw.errors import DumpError

from . import booted, programs
from .textfile import digest, read, write

Entry = dict[str, Any]


class StepError(DumpError):
    """A change cannot be made or undone; the message names it."""


class File:
    """A file that gets a new content, or is made.

    Args:
        path: of the file; a link is followed.
        content: the new text.
    """

    def __init__(self, path: Path, content: str) -> None:
        self.path = path.resolve()
        self.content = content
        self.before = read(self.path)

    def needed(self) -> bool:
        return self.before != self.content

    def name(self) -> str:
        return f"write {self.path}"

    def describe(self) -> str:
        """Return a unified diff."""
        old = "/dev/null" if self.before is None else str(self.path)
        lines = [text.splitlines(keepends=True) for text in (self.before or "", self.content)]
        diff = difflib.unified_diff(lines[0], lines[1], old, str(self.path), n=2)
        return "".join(line if line.endswith("\n") else line + "\n" for line in diff).rstrip("\n")

    def entry(self, known: Entry | None) -> Entry:
        """Return the entry of the record.

        Args:
            known: of an earlier run, for the same file; what was before that counts.
        """
        before = self.before
        # Of a file that a person changed after the earlier run, theirs is the text to keep.
        if known is not None and digest(before) in (known["after"], digest(known["before"])):
            before = known["before"]
        return {
            "kind": "file",
            "key": str(self.path),
            "before": before,
            "after": digest(self.content),
        }

    def do(self) -> None:
        if read(self.path) != self.before:
            raise StepError(f"{self.path} was changed meanwhile: once more")
        write(self.path, self.content)


class Folder:
    """A folder that is made.

    Args:
        path: of the folder.
        mode: of the folder.
    """

    def __init__(self, path: Path, mode: int = 0o755) -> None:
        self.path, self.mode = path, mode

    def needed(self) -> bool:
        return not self.path.is_dir()

    def name(self) -> str:
        return f"make the folder {self.path}"

    describe = name

    def entry(self, known: Entry | None) -> Entry:
        return {"kind": "folder", "key": str(self.path)}

    def do(self) -> None:
        try:
            self.path.mkdir(self.mode)
        except OSError as error:
            raise StepError(f"{self.path}: {error.strerror}") from error


def folders(path: Path, mode: int = 0o755) -> list[Folder]:
    """Return the folders that a file needs and that are not there, the uppermost first."""
    missing = [each for each in path.parents if not each.is_dir()]
    return [Folder(each, mode) for each in reversed(missing)]


class Sysctl:
    """A number of the running kernel.

    Args:
        path: of its file below /proc/sys.
        value: the new one.
    """

    def __init__(self, path: Path, value: int) -> None:
        self.path = path
        self.value = value
        self.before = (read(path) or "").strip()

    def needed(self) -> bool:
        return self.before not in ("", str(self.value))

    def name(self) -> str:
        return f"write {self.value} to {self.path} (now {self.before})"

    describe = name

    def entry(self, known: Entry | None) -> Entry:
        before = known["before"] if known else self.before
        key = str(self.path)
        return {"kind": "sysctl", "key": key, "before": before, "after": str(self.value)}

    def do(self) -> None:
        _put(self.path, str(self.value))


class Program:
    """A program that is run now, or when the other changes are undone, or both.

    Args:
        words: to run now; none of them, nothing.
        undo: to run by remove.
        why: for a person, what it does.
    """

    def __init__(self, words: Sequence[str], undo: Sequence[str], why: str) -> None:
        self.words, self.undo, self.why = list(words), list(undo), why

    def needed(self) -> bool:
        return True

    def name(self) -> str:
        return f"run {shlex.join(self.words)}" if self.words else ""

    def describe(self) -> str:
        return f"{self.name()}    # {self.why}" if self.words else ""

    def entry(self, known: Entry | None) -> Entry | None:
        if not self.undo:
            return None
        return known or {"kind": "program", "key": shlex.join(self.undo), "words": self.undo}

    def do(self) -> None:
        if self.words:
            programs.run(self.words)


class Action:
    """A change that is a function of pvdump, such as the making of a target.

    Args:
        what: for a person, as an order: "make ...".
        work: makes the change.
        made: the entry from which it is undone, without its key; None where nothing is to undo.
    """

    def __init__(
        self, what: str, work: Callable[[], object], made: Mapping[str, str] | None
    ) -> None:
        self.what, self.work, self.made = what, work, made

    def needed(self) -> bool:
        return True

    def name(self) -> str:
        return self.what

    describe = name

    def entry(self, known: Entry | None) -> Entry | None:
        return {**self.made} if self.made is not None else None

    def do(self) -> None:
        self.work()


def undo_file(entry: Entry) -> str:
    """Give a file its content of before. Returns what is to be said, or ""."""
    path = Path(entry["key"])
    now = read(path)
    if digest(now) == digest(entry["before"]):
        return ""
    if digest(now) != entry["after"]:
        return f"{path} was changed since by somebody else, and stays as it is"
    write(path, entry["before"])
    return ""


def undo_folder(entry: Entry) -> str:
    """Remove a folder if it is empty. Returns what is to be said, or ""."""
    with suppress(OSError):
        Path(entry["key"]).rmdir()
    return ""


def undo_sysctl(entry: Entry) -> str:
    """Give a number of the kernel its value of before. Returns what is to be said, or ""."""
    path = Path(entry["key"])
    if (read(path) or "").strip() == entry["after"]:
        _put(path, entry["before"])
    return ""


def undo_program(entry: Entry) -> str:
    """Run a program that takes something back. Returns what is to be said, or ""."""
    programs.run(entry["words"])
    return ""


def undo_boots(entry: Entry) -> str:
    """Have boots counted no more. Returns what is to be said, or ""."""
    booted.end()
    return ""


def _put(path: Path, value: str) -> None:
    try:
        path.write_text(value)
    except OSError as error:
        raise StepError(f"{path}: {error.strerror}") from error
