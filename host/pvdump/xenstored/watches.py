"""Watches, indexed by path, and the listeners that are told of a change.

The server holds one Watches for all clients and for code in the same process. Rules:
- A change concerns the watches of its path and of every path above it. A removal also concerns the
  watches of each path that was removed with it, and these are told that path.
- Only a listener that may read the node, before or after the change, is told.
- A listener's watches are told in the order in which they were set.
- The changes of one commit cost their paths, the listeners concerned and the events, not paths
  times levels or paths times watches: what reaches a path is looked up once per batch, and a
  listener without room for events is passed over whole.
Source: Xen docs/misc/xenstore.txt, Watches.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable
from typing import Protocol

from .domain import DomainRecord
from .nodes import Change, Perms, may


class Listener(Protocol):
    """The owner of watches: a client's connection, or code of this process."""

    domain: DomainRecord

    def full(self) -> bool:
        """Return whether there is no room for another event, which then counts as lost."""
        ...


class LocalListener:
    """Code of this process, which acts as a domain and takes every event at once."""

    def __init__(self, domain: DomainRecord) -> None:
        self.domain = domain

    def full(self) -> bool:
        """Return False: events are not held."""
        return False


class Watch:
    """One watch.

    Args:
        listener: who set it.
        path: absolute path or special name.
        tell: called with the path that changed.
        depth: levels below path that are told, or None for all.
    """

    __slots__ = ("depth", "last", "listener", "path", "serial", "tell")

    def __init__(
        self,
        listener: Listener,
        path: str,
        tell: Callable[[str], None],
        depth: int | None = None,
    ) -> None:
        self.listener = listener
        self.path = path
        self.tell = tell
        self.depth = depth
        # The deepest level that is told.
        self.last = math.inf if depth is None else level_of(path) + depth
        self.serial = 0


class Group:
    """Watches of one listener that reach a path, in the order in which they were set."""

    __slots__ = ("last", "watches")

    def __init__(self, watches: Iterable[Watch] = ()) -> None:
        self.watches = dict.fromkeys(sorted(watches, key=lambda watch: watch.serial))
        # No deeper level is out of reach of any of them.
        self.last = min((watch.last for watch in self.watches), default=math.inf)


class Reach:
    """All watches that reach a path, by listener."""

    __slots__ = ("groups", "last")

    def __init__(self, groups: dict[Listener, Group]) -> None:
        self.groups = groups
        self.last = min((group.last for group in groups.values()), default=math.inf)


NOTHING = Reach({})


def level_of(path: str) -> int:
    """Return the number of names in an absolute path: 0 for the root."""
    return 0 if path == "/" else path.count("/")


def _groups(watches: dict[Listener, list[Watch]]) -> dict[Listener, Group]:
    return {listener: Group(found) for listener, found in watches.items() if found}


def _both(above: Reach, here: Reach) -> Reach:
    """Return the watches of both; the parts that only one has are shared."""
    if not above.groups:
        return here
    groups = dict(above.groups)
    for listener, group in here.groups.items():
        other = groups.get(listener)
        groups[listener] = Group([*other.watches, *group.watches]) if other else group
    return Reach(groups)


def _below(above: Reach, level: int) -> Reach:
    """Return the watches of those that reach a path which also reach the next level."""
    groups = {}
    for listener, group in above.groups.items():
        if level <= group.last:
            groups[listener] = group
        elif watches := [watch for watch in group.watches if level <= watch.last]:
            groups[listener] = Group(watches)
    return Reach(groups)


def _tell(groups: dict[Listener, Group], path: str, perms: tuple[Perms, ...]) -> None:
    """Tell those that may know of a node with these permissions and have room for an event."""
    # A listener of this process may set or end watches when it is told.
    for listener, group in list(groups.items()):
        for each in perms:
            if may(listener.domain, each, "r"):
                if not listener.full():
                    for watch in list(group.watches):
                        watch.tell(path)
                break


class Watches:
    """All watches of a store."""

    def __init__(self) -> None:
        self._at: dict[str, Reach] = {}  # those set on the very path
        self._serials = itertools.count(1)
        self._edits = 0  # how often a watch was added or removed

    def add(self, watch: Watch) -> None:
        """Set a watch."""
        watch.serial = next(self._serials)
        reach = self._at.setdefault(watch.path, Reach({}))
        group = reach.groups.setdefault(watch.listener, Group())
        group.watches[watch] = None
        group.last = min(group.last, watch.last)
        reach.last = min(reach.last, watch.last)
        self._edits += 1

    def remove(self, watch: Watch) -> None:
        """Remove a watch that is set."""
        groups = self._at[watch.path].groups
        del groups[watch.listener].watches[watch]
        if not groups[watch.listener].watches:
            del groups[watch.listener]
            if not groups:
                del self._at[watch.path]
        self._edits += 1

    def fire(self, changes: Iterable[Change]) -> None:
        """Tell a batch of changes, in their order."""
        known: dict[str, Reach] = {}  # what reaches the paths looked up so far
        edits = self._edits
        for change in changes:
            if edits != self._edits:  # a listener set or ended a watch when it was told
                known, edits = {}, self._edits
            # A special name, changed by SET_PERMS, is below nothing.
            if change.exact or change.path.startswith("@"):
                reach = self._at.get(change.path, NOTHING)
            else:
                reach = self._reaching(change.path, known)
            if reach.groups:
                _tell(reach.groups, change.path, change.perms)

    def fire_special(self, name: str, domid: int, perms: Perms) -> None:
        """Tell @introduceDomain or @releaseDomain; with a depth, the path names the domain."""
        one = f"{name}/{domid}"
        set_there = self._at.get(name, NOTHING)
        at_all, with_depth = {}, {}
        for listener, group in set_there.groups.items():
            at_all[listener] = [watch for watch in group.watches if watch.depth is None]
            with_depth[listener] = [watch for watch in group.watches if watch.depth]
        _tell(_groups(at_all), name, (perms,))
        deep = _both(Reach(_groups(with_depth)), self._at.get(one, NOTHING))
        _tell(deep.groups, one, (perms,))

    def _reaching(self, path: str, known: dict[str, Reach]) -> Reach:
        """Return the watches of a path and of those above it; `known` is used and filled."""
        missing = []
        while path not in known:
            missing.append(path)
            if path == "/":
                break
            path = path[: path.rfind("/")] or "/"
        reach = known.get(path, NOTHING)
        top = level_of(missing[-1]) if missing else 0
        for level, path in enumerate(reversed(missing), top):
            if level > reach.last:
                reach = _below(reach, level)
            if path in self._at:
                reach = _both(reach, self._at[path])
            known[path] = reach
        return reach
