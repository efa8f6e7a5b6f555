"""Nodes of xenstore, and the operations on them with their permissions and errors.

Tree (tree.py) and Transaction (transaction.py) are Nodes; connections use both alike, on behalf of
a domain. Each operation is written once, over a few primitives that both have. The rules are C
xenstored's: an absent node is ENOENT for a domain that may access the nearest node above it, else
EACCES; missing nodes above a new one are made, empty; a guest owns what it makes and cannot give it
away.
Source: Xen docs/misc/xenstore.txt; xen/include/public/io/xs_wire.h.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from xenpv import abi

from .domain import DOM0, DomainRecord, StoreError

PATH = re.compile(r"/|(?:/[A-Za-z0-9_@-]+)+")
NODE_HEADER = 24  # bytes that C xenstored counts for a node, and for each permission of it
NODE_PERM = 8

Perms = tuple[tuple[str, int], ...]  # ("n" | "r" | "w" | "b", domid); the first names the owner


class Kids:
    """The names below a node, in order of creation; size: their bytes with a NUL each."""

    __slots__ = ("_listing", "gen", "names", "size")

    def __init__(self, gen: int) -> None:
        self.names: dict[str, None] = {}
        self.gen = gen
        self.size = 0
        self._listing: bytes | None = b""

    def add(self, name: str, gen: int) -> None:
        """Add a child at a generation."""
        self.names[name] = None
        self.size += len(name) + 1
        self.gen = gen
        self._listing = None

    def drop(self, name: str, gen: int) -> None:
        """Remove a child at a generation."""
        del self.names[name]
        self.size -= len(name) + 1
        self.gen = gen
        self._listing = None

    def listing(self) -> bytes:
        """Return the names with a NUL each; kept until they change, for reads in parts."""
        if self._listing is None:
            self._listing = "".join(f"{name}\0" for name in self.names).encode()
        return self._listing


class Node:
    """A node; it is never changed: a write replaces it by another one with the same Kids."""

    __slots__ = ("gen", "kids", "perms", "value")

    def __init__(self, value: bytes, perms: Perms, gen: int, kids: Kids) -> None:
        self.value = value
        self.perms = perms
        self.gen = gen
        self.kids = kids


class Change(NamedTuple):
    """A path that was changed."""

    path: str
    # Domains that could read it before, or can read it now, may be told.
    perms: tuple[Perms, ...]
    # Only watches of this very path concern it, because a node above it was removed.
    exact: bool = False


def may(who: DomainRecord, perms: Perms, wanted: str) -> bool:
    """Return whether a domain may read ("r") or write ("w") a node with these permissions."""
    if owns(who, perms):
        return True
    letter = perms[0][0]
    for other, domid in perms[1:]:
        if domid == who.domid or domid == who.target:
            letter = other
            break
    return letter == wanted or letter == "b"


def owns(who: DomainRecord, perms: Perms) -> bool:
    """Return whether a domain has an owner's rights: dom0, the owner, or with it as target."""
    return who.domid == DOM0 or perms[0][1] == who.domid or perms[0][1] == who.target


def parent(path: str) -> str:
    """Return the path of a node's parent; the root's is the root."""
    return path.rpartition("/")[0] or "/"


def leaf(path: str) -> str:
    """Return the last name of a path."""
    return path.rpartition("/")[2]


def names_of(listing: bytes) -> list[str]:
    """Return the names of a listing, which has a NUL after each."""
    return listing.decode().split("\0")[:-1]


def check_path(path: str) -> str:
    """Return the path. Raises StoreError EINVAL if it is no absolute path."""
    if len(path) > abi.XENSTORE_ABS_PATH_MAX or not PATH.fullmatch(path):
        raise StoreError("EINVAL")
    return path


class Nodes:
    """The operations. One that raises StoreError has changed nothing."""

    # The primitives. seen() is told what an answer depends on: the whole node, or its perms only.

    def seen(self, path: str, kind: str = "node") -> Node | None:
        """Return a node or None; the answer depends on all of it, or for "perms" on those."""
        raise NotImplementedError

    def listing(self, path: str) -> bytes:
        """Return the names of the children with a NUL each."""
        raise NotImplementedError

    def children_size(self, path: str) -> int:
        """Return the bytes of the children's names with a NUL each."""
        raise NotImplementedError

    def generation_of(self, path: str) -> int:
        """Return the generation of the last change of a node or its children."""
        raise NotImplementedError

    def owned(self, domid: int) -> int:
        """Return how many nodes a domain owns."""
        raise NotImplementedError

    def _add(self, path: str, value: bytes, perms: Perms) -> None:
        raise NotImplementedError

    def _set(self, path: str, value: bytes, perms: Perms) -> None:
        raise NotImplementedError

    def _remove(self, path: str) -> None:
        raise NotImplementedError

    def _changed(self, path: str, *perms: Perms, exact: bool = False) -> None:
        raise NotImplementedError

    # The operations.

    def read(self, who: DomainRecord, path: str) -> bytes:
        """Return a node's value. Raises StoreError."""
        return self._find(who, path).value

    def get_perms(self, who: DomainRecord, path: str) -> Perms:
        """Return a node's permissions. Raises StoreError."""
        return self._find(who, path).perms

    def directory(self, who: DomainRecord, path: str) -> bytes:
        """Return the names of the children with a NUL each. Raises StoreError."""
        self._find(who, path, "perms")
        return self.listing(path)

    def directory_part(self, who: DomainRecord, path: str) -> tuple[int, bytes]:
        """Return the generation, which differs after each change of the node, and the children."""
        self._find(who, path)
        names = self.listing(path)
        return self.generation_of(path), names

    def exists(self, path: str) -> bool:
        """Return whether there is such a node."""
        return self.seen(path) is not None

    def write(self, who: DomainRecord, path: str, value: bytes) -> None:
        """Set a node's value; an absent node and its parents are made. Raises StoreError."""
        node = self.seen(path)
        if node is None:
            self._create(who, path, value)
            return
        if not may(who, node.perms, "w"):
            raise StoreError("EACCES")
        self._check_size(who, path, value, node.perms)
        self._set(path, value, node.perms)
        self._changed(path, node.perms)

    def mkdir(self, who: DomainRecord, path: str) -> None:
        """Make an empty node, unless there is one."""
        node = self.seen(path)
        if node is None:
            self._create(who, path, b"")
        elif not may(who, node.perms, "w"):
            raise StoreError("EACCES")

    def rm(self, who: DomainRecord, path: str) -> None:
        """Remove a node and all below it. An absent node is no error if its parent exists."""
        node = self.seen(path)
        if node is None:
            code = self._absent(who, path, "w")
            if code == "ENOENT" and self.seen(parent(path), "perms") is not None:
                return
            raise StoreError(code)
        if not may(who, node.perms, "w"):
            raise StoreError("EACCES")
        if path == "/":
            raise StoreError("EINVAL")
        self._remove_all(path)

    def set_perms(self, who: DomainRecord, path: str, perms: Perms) -> None:
        """Set permissions. Only the owner may, and only domain 0 may change the owner."""
        who.check("node-permissions", len(perms))
        node = self.seen(path)
        if node is None:
            raise StoreError(self._absent(who, path, "w"))
        if not owns(who, node.perms):
            raise StoreError("EACCES")
        if who.domid != DOM0 and perms[0][1] != node.perms[0][1]:
            raise StoreError("EPERM")
        self._check_size(who, path, node.value, perms)
        self._set(path, node.value, perms)
        self._changed(path, node.perms, perms)

    def _find(self, who: DomainRecord, path: str, kind: str = "node") -> Node:
        """Return the node. Raises StoreError if it is absent or the domain may not read it."""
        node = self.seen(path, kind)
        if node is None:
            raise StoreError(self._absent(who, path, "r"))
        if not may(who, node.perms, "r"):
            raise StoreError("EACCES")
        return node

    def _absent(self, who: DomainRecord, path: str, wanted: str) -> str:
        """Return the error for a node that is not there."""
        if who.domid == DOM0:
            return "ENOENT"
        return "ENOENT" if may(who, self._above(path)[0].perms, wanted) else "EACCES"

    def _above(self, path: str) -> tuple[Node, list[str]]:
        """Return the nearest node above an absent one, and the missing paths, deepest first."""
        missing = [path]
        above = parent(path)
        node = self.seen(above, "perms")
        while node is None:
            missing.append(above)
            above = parent(above)
            node = self.seen(above, "perms")
        return node, missing

    def _create(self, who: DomainRecord, path: str, value: bytes) -> None:
        node, missing = self._above(path)
        if not may(who, node.perms, "w"):
            raise StoreError("EACCES")
        perms = node.perms
        if who.domid != DOM0:
            who.check("nodes", self.owned(who.domid) + len(missing))
            self._check_size(
                who, parent(missing[-1]), node.value, perms, len(leaf(missing[-1])) + 1
            )
            perms = ((perms[0][0], who.domid), *perms[1:])
            self._check_size(who, path, value, perms)
        for other in reversed(missing):
            self._add(other, value if other == path else b"", perms)
        self._changed(path, perms)

    def _check_size(
        self, who: DomainRecord, path: str, value: bytes, perms: Perms, more: int = 0
    ) -> None:
        """Raise StoreError if the node gets too large for the quota.

        more: bytes of names to come below the node.
        """
        if who.domid != DOM0:
            names = more + self.children_size(path)
            size = NODE_HEADER + NODE_PERM * len(perms) + len(value) + names
            who.check("node-size", size)

    def _remove_all(self, path: str) -> None:
        """Remove a node and all below it, the deepest first."""
        todo = [path]
        found = []
        for other in todo:
            node = self.seen(other)
            # A transaction that others' changes have overtaken may have seen the two at different
            # times, the list of children and the child; it will not commit.
            if node is not None:
                found.append((other, node.perms))
                todo.extend(f"{other}/{name}" for name in names_of(self.listing(other)))
        for other, perms in reversed(found):
            self._remove(other)
            self._changed(other, perms, exact=other != path)
