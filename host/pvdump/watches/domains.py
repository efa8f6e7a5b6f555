"""The domains that exist: the listing of /local/domain, and what changed since the last one.

Used by the dispatcher when @introduceDomain or @releaseDomain fires; neither names a domain, and
one may stand for many. If a domid went to another domain between two listings, its `vm` node
differs, so that node is read after a release. libxl does not use a domid again for a minute; other
toolstacks may. Reads block, so a worker makes them.
Source: Xen docs/misc/xenstore.txt (WATCH), docs/misc/xenstore-paths.pandoc.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from xenpv.errors import XenstoreError
from xenpv.text import decimal

ROOT = "/local/domain"
INTRODUCED, RELEASED = "@introduceDomain", "@releaseDomain"
FIRST_RESERVED = 0x7FF0  # DOMID_FIRST_RESERVED, xen/include/public/xen.h


class Handle(Protocol):
    """A watch that was set."""

    def close(self) -> None:
        """End the watch."""


class Store(Protocol):
    """The part of xenstore.store.Store that is used."""

    def watch(self, path: str, tell: Callable[[str, str], None]) -> Handle:
        """Set a watch; `tell` is called in one thread and must not block."""

    def directory(self, path: str, default: list[str] | None = None) -> list[str]:
        """Return the names of a node's children, or the default if it is absent."""

    def find(self, path: str) -> bytes | None:
        """Return a node's value, or None if there is no such node."""


@dataclass
class Changes:
    """Domids of domains that came and went; replaced: another domain has the domid now."""

    appeared: list[int] = field(default_factory=list)
    vanished: list[int] = field(default_factory=list)
    replaced: list[int] = field(default_factory=list)


def domid(name: str) -> int | None:
    """Return the domid that a node's name stands for, or None."""
    return decimal(name, 0, FIRST_RESERVED - 1)


def value_of(store: Store, path: str) -> bytes | None:
    """Return a node's value, None if there is none or it may not be read. Raises XenError."""
    try:
        return store.find(path)
    except XenstoreError as error:
        if error.code == "EACCES":
            return None
        raise


def names_of(store: Store, path: str) -> list[str]:
    """Return the names below a node, none if it is absent or unreadable. Raises XenError."""
    try:
        return store.directory(path, [])
    except XenstoreError as error:
        if error.code == "EACCES":
            return []
        raise


class Domains:
    """The domains as of the last look."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._vm: dict[int, bytes | None] = {}

    def refresh(self, released: bool) -> Changes:
        """List the domains. released: whether one may have gone. Raises XenError."""
        names = self._store.directory(ROOT, [])
        there = {number for name in names if (number := domid(name)) is not None}
        before = self._vm
        changes = Changes(sorted(there - before.keys()), sorted(before.keys() - there))
        now = {number: before.get(number) for number in there}
        for number in there if released else changes.appeared:
            vm = value_of(self._store, f"{ROOT}/{number}/vm")
            # Without the node, which comes late and goes early, nothing is known either way.
            if vm is not None:
                if now[number] not in (None, vm):
                    changes.replaced.append(number)
                now[number] = vm
        self._vm = now
        return changes
