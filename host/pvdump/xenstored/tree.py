"""The nodes of xenstore: values, children, permissions, transactions.

Used by connections on behalf of a domain. A change leaves a note in `changes`, from which the
server fires watches. A transaction works on a copy; it remembers the generation of all that it
looked at, and commits by doing its changes again on the real tree, unless something it saw has
changed since. So transactions that share nothing both commit, and one that acted on old news gets
EAGAIN.
Source: Xen docs/misc/xenstore.txt; xen/include/public/io/xs_wire.h.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace

from xenpv import abi

PATH = re.compile(r"(/|(/[A-Za-z0-9_@:+.\-]+)+)")
DOM0 = 0

Perms = tuple[tuple[str, int], ...]  # ("n" | "r" | "w" | "b", domid); the first names the owner


class StoreError(Exception):
    """A request's answer is an error; `code` is its name on the wire, such as ENOENT."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


@dataclass
class Node:
    value: bytes = b""
    perms: Perms = (("n", DOM0),)
    children: dict[str, None] = field(default_factory=dict)  # in order of creation
    value_gen: int = 0
    children_gen: int = 0


@dataclass(frozen=True)
class Change:
    """A path that was changed. perms: those that say who may learn of it; removed: all paths that
    went with it."""

    path: str
    perms: Perms
    removed: frozenset[str] = frozenset()


def may(perms: Perms, domid: int, wanted: str) -> bool:
    """Whether a domain may read ("r") or write ("w") a node with these permissions."""
    if domid == DOM0 or perms[0][1] == domid:
        return True
    letter = next((letter for letter, who in perms[1:] if who == domid), perms[0][0])
    return letter in (wanted, "b")


def parent(path: str) -> str:
    return path.rpartition("/")[0] or "/"


def check_path(path: str) -> str:
    """Raises StoreError EINVAL for what cannot be an absolute path."""
    if len(path) > abi.XENSTORE_ABS_PATH_MAX or not PATH.fullmatch(path):
        raise StoreError("EINVAL")
    return path


class Tree:
    def __init__(self) -> None:
        self.nodes: dict[str, Node] = {"/": Node()}
        self.generation = 0
        self.changes: list[Change] = []

    def _saw(self, path: str, kind: str) -> None:
        """A transaction takes note of what an answer depended on."""

    def _did(self, name: str, *args: object) -> None:
        """A transaction takes note of what it has to do again when it commits."""

    def generation_of(self, path: str, kind: str) -> int | None:
        node = self.nodes.get(path)
        return None if node is None else getattr(node, kind)

    def _next(self) -> int:
        self.generation += 1
        return self.generation

    def _node(self, domid: int, path: str, wanted: str, kind: str = "value_gen") -> Node:
        check_path(path)
        self._saw(path, kind)
        node = self.nodes.get(path)
        if node is None:
            raise StoreError("ENOENT")
        if not may(node.perms, domid, wanted):
            raise StoreError("EACCES")
        return node

    def read(self, domid: int, path: str) -> bytes:
        return self._node(domid, path, "r").value

    def directory(self, domid: int, path: str) -> list[str]:
        return list(self._node(domid, path, "r", "children_gen").children)

    def exists(self, path: str) -> bool:
        self._saw(path, "value_gen")
        return path in self.nodes

    def _make(self, domid: int, path: str) -> Node:
        """Make a node and, empty, whatever is missing above it."""
        above = parent(path)
        if above in self.nodes:
            if not may(self.nodes[above].perms, domid, "w"):
                raise StoreError("EACCES")
        else:
            self._make(domid, above)
        perms = self.nodes[above].perms
        if domid != DOM0:
            perms = ((perms[0][0], domid), *perms[1:])
        node = Node(perms=perms, value_gen=self._next(), children_gen=self.generation)
        self.nodes[path] = node
        self.nodes[above].children[path.rpartition("/")[2]] = None
        self.nodes[above].children_gen = self._next()
        return node

    def write(self, domid: int, path: str, value: bytes) -> None:
        check_path(path)
        node = self.nodes.get(path)
        if node is None:
            node = self._make(domid, path)
        elif not may(node.perms, domid, "w"):
            raise StoreError("EACCES")
        node.value = value
        node.value_gen = self._next()
        self._did("write", domid, path, value)
        self.changes.append(Change(path, node.perms))

    def mkdir(self, domid: int, path: str) -> None:
        """Make an empty node; one that is there stays as it is."""
        check_path(path)
        self._saw(path, "value_gen")
        node = self.nodes.get(path)
        if node is not None:
            if not may(node.perms, domid, "w"):
                raise StoreError("EACCES")
            return
        node = self._make(domid, path)
        self._did("mkdir", domid, path)
        self.changes.append(Change(path, node.perms))

    def rm(self, domid: int, path: str) -> None:
        """Remove a node and all below it. One that is not there is fine if its parent is."""
        check_path(path)
        if path == "/":
            raise StoreError("EINVAL")
        self._saw(path, "value_gen")
        node = self.nodes.get(path)
        if node is None:
            if parent(path) not in self.nodes:
                raise StoreError("ENOENT")
            return
        if not may(node.perms, domid, "w"):
            raise StoreError("EACCES")
        gone = [path, *(other for other in self.nodes if other.startswith(path + "/"))]
        for other in gone:
            del self.nodes[other]
        above = self.nodes[parent(path)]
        del above.children[path.rpartition("/")[2]]
        above.children_gen = self._next()
        self._did("rm", domid, path)
        self.changes.append(Change(path, node.perms, frozenset(gone)))

    def get_perms(self, domid: int, path: str) -> Perms:
        return self._node(domid, path, "r").perms

    def set_perms(self, domid: int, path: str, perms: Perms) -> None:
        """Only the owner may, and only domain 0 gives a node away."""
        node = self._node(domid, path, "w")
        owner = node.perms[0][1]
        if domid != DOM0 and domid != owner:
            raise StoreError("EACCES")
        if domid != DOM0 and perms[0][1] != owner:
            raise StoreError("EPERM")
        node.perms = perms
        node.value_gen = self._next()
        self._did("set_perms", domid, path, perms)
        self.changes.append(Change(path, perms))

    def take_changes(self) -> list[Change]:
        changes, self.changes = self.changes, []
        return changes


class Transaction(Tree):
    """A copy of a tree, until commit() or until it is dropped."""

    def __init__(self, base: Tree) -> None:
        super().__init__()
        self.base = base
        self.nodes = {
            path: replace(node, children=dict(node.children)) for path, node in base.nodes.items()
        }
        self.generation = base.generation
        self._seen: dict[tuple[str, str], int | None] = {}
        self._done: list[tuple[str, tuple[object, ...]]] = []

    def _saw(self, path: str, kind: str) -> None:
        generation = self.generation_of(path, kind)
        # What the transaction made itself says nothing about the world outside.
        if generation is None or generation <= self.base.generation:
            self._seen.setdefault((path, kind), self.base.generation_of(path, kind))

    def _did(self, name: str, *args: object) -> None:
        self._done.append((name, args))

    def commit(self) -> None:
        """Do it on the real tree. Raises StoreError EAGAIN."""
        if any(self.base.generation_of(*key) != seen for key, seen in self._seen.items()):
            raise StoreError("EAGAIN")
        for name, args in self._done:
            getattr(self.base, name)(*args)
