"""A pattern of xenstore paths in which `*` stands for one name, the first one for the domain.

`/local/domain/*/data/pvdump/state` is that node of each domain,
`/local/domain/0/backend/vbd/*/*/state` the state of each of their disks. Used by run.py. The rule:
one watch is made, above the first `*`; what it tells of other paths is left out where it comes.
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
    """A pattern that is not one, and what is wrong with it."""


class Found(NamedTuple):
    path: str
    value: bytes


class Pattern:
    """Raises PatternError."""

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
        """For Dispatcher.subscribe(): whose a path is; NOBODY when nothing that matches is there.

        A path above the last name counts when something that matches may be below it.
        """
        names = path.split("/")[1:]
        if len(names) > len(self._names) or not all(
            wanted in ("*", name) for wanted, name in zip(self._names, names, strict=False)
        ):
            return NOBODY
        if len(names) <= self._star:
            return None
        domid = domains.domid(names[self._star])
        return NOBODY if domid is None else domid

    def matches(self, path: str) -> bool:
        """Whether a path that domain_of() knows is whole, not one above."""
        return path.count("/") == len(self._names)

    def domids(self, store: Store) -> list[int]:
        """The domains below base. Blocks. Raises XenError."""
        there = map(domains.domid, store.directory(self.base, []))
        return [domid for domid in there if domid is not None]

    def find(self, store: Store, domid: int) -> list[Found]:
        """What there is for a domain. Blocks. Raises XenError."""
        paths = [f"{self.base}/{domid}"]
        for name in self._names[self._star + 1 :]:
            paths = [
                f"{path}/{child}"
                for path in paths
                for child in ([name] if name != "*" else names_of(store, path))
            ]
        values = ((path, value_of(store, path)) for path in paths)
        return [Found(path, value) for path, value in values if value is not None]
