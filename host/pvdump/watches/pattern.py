"""A pattern of xenstore paths in which each `*` stands for one name, the first one for the domid.

`/local/domain/*/data/pvdump/state` is that node of each domain,
`/local/domain/0/backend/vbd/*/*/state` the state of each of their disks. Used by run.py. The rule:
one watch is set above the first `*`, and events of paths that do not match are left out on arrival.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from xenpv import abi

from . import domains
from .dispatcher import NOBODY
from .domains import Store, names_of, value_of

NAME = re.compile(r"[A-Za-z0-9@_-]+")  # what the wire allows


class PatternError(ValueError):
    """The text is no pattern; the message says why."""


class Found(NamedTuple):
    """A node that matches."""

    path: str
    value: bytes


class Pattern:
    """A parsed pattern. Raises PatternError."""

    def __init__(self, text: str) -> None:
        names = text.split("/")[1:]
        if not text.startswith("/") or len(text) > abi.XENSTORE_ABS_PATH_MAX:
            raise PatternError(
                f"pattern {text!r}: expected an absolute path, with * for the domain"
            )
        for name in names:
            if name != "*" and not NAME.fullmatch(name):
                raise PatternError(f"pattern {text!r}: {name!r} is neither a name nor *")
        if "*" not in names:
            raise PatternError(f"pattern {text!r}: none of its names is *, for the domain")
        self.text = text
        self._names = names
        self._star = names.index("*")
        if self._star == 0:
            raise PatternError(f"pattern {text!r}: a name is expected before the first *")
        self.base = "/" + "/".join(names[: self._star])

    def domain_of(self, path: str, token: str) -> int | None:
        """Return the domid of an event's path, for Dispatcher.subscribe().

        Returns:
            the domid; None for a path above the domids; NOBODY if neither the path nor anything
            below it can match.
        """
        names = path.split("/")[1:]
        if len(names) > len(self._names) or not all(
            wanted in ("*", name) for wanted, name in zip(self._names, names)
        ):
            return NOBODY
        if len(names) <= self._star:
            return None
        domid = domains.domid(names[self._star])
        return NOBODY if domid is None else domid

    def matches(self, path: str) -> bool:
        """Return whether a path matches itself, not only paths below it."""
        return path.count("/") == len(self._names)

    def domids(self, store: Store) -> list[int]:
        """Look up the domids below base. Blocks. Raises XenError."""
        there = map(domains.domid, store.directory(self.base, []))
        return [domid for domid in there if domid is not None]

    def find(self, store: Store, domid: int) -> list[Found]:
        """Look up the nodes of a domain that match. Blocks. Raises XenError."""
        paths = [f"{self.base}/{domid}"]
        for name in self._names[self._star + 1 :]:
            paths = [
                f"{path}/{child}"
                for path in paths
                for child in ([name] if name != "*" else names_of(store, path))
            ]
        values = ((path, value_of(store, path)) for path in paths)
        return [Found(path, value) for path, value in values if value is not None]
