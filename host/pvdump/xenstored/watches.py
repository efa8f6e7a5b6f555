"""Watches, indexed by path.

Held by the server, for clients and for whoever lives in the same process. An event concerns the
watches of the changed path and of those above it; of a removal, those of each removed path too,
with that path. Only who may read the node, before or after the change, hears of it. A client's
watches are told in the order they were set.
Source: Xen docs/misc/xenstore.txt, Watches.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable

from .domain import Domain
from .nodes import Change, Perms, may, parent


class Watch:
    """path: absolute; tell(path): called with the changed path; depth: levels below, or None."""

    __slots__ = ("depth", "path", "serial", "tell", "who")

    def __init__(
        self, who: Domain, path: str, tell: Callable[[str], None], depth: int | None = None
    ) -> None:
        self.who = who
        self.path = path
        self.tell = tell
        self.depth = depth
        self.serial = 0


class Watches:
    def __init__(self) -> None:
        self._at: dict[str, list[Watch]] = {}
        self._serials = itertools.count(1)

    def add(self, watch: Watch) -> None:
        watch.serial = next(self._serials)
        self._at.setdefault(watch.path, []).append(watch)

    def remove(self, watch: Watch) -> None:
        self._at[watch.path].remove(watch)
        if not self._at[watch.path]:
            del self._at[watch.path]

    def fire(self, change: Change) -> None:
        found = list(self._at.get(change.path, ()))
        path, level = change.path, 0
        # A special name, changed by SET_PERMS, is below nothing.
        while not change.exact and path != "/" and not path.startswith("@"):
            path, level = parent(path), level + 1
            for watch in self._at.get(path, ()):
                if watch.depth is None or level <= watch.depth:
                    found.append(watch)
        self._tell(found, change.path, change.perms)

    def fire_special(self, name: str, domid: int, perms: Perms) -> None:
        """@introduceDomain or @releaseDomain; with a depth, the domain is part of the path."""
        watches = self._at.get(name, ())
        self._tell([w for w in watches if w.depth is None], name, (perms,))
        deep = [w for w in watches if w.depth]
        self._tell([*deep, *self._at.get(f"{name}/{domid}", ())], f"{name}/{domid}", (perms,))

    def _tell(self, found: list[Watch], path: str, perms: Iterable[Perms]) -> None:
        found.sort(key=lambda watch: watch.serial)
        for watch in found:
            if any(may(watch.who, each, "r") for each in perms):
                watch.tell(path)
