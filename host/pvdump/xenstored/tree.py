"""The tree of xenstore: every node by its path, and the changes that watches are yet to be told.

Held by the server. Only check() scans the tree: nodes have their children, and each domain's nodes
are counted and listed by its domid. Each change is appended to `changes`, and the server fires
watches from there.
Source: Xen docs/misc/xenstore.txt.
"""

from __future__ import annotations

from collections import defaultdict

from .domain import DOM0
from .nodes import Change, Kids, Node, Nodes, Perms, leaf, parent

SPECIAL = ("@introduceDomain", "@releaseDomain")  # nodes that only have permissions


class Tree(Nodes):
    """The store itself."""

    def __init__(self) -> None:
        self.generation = 0
        self.changes: list[Change] = []
        self.nodes: dict[str, Node] = {}
        self._owned: dict[int, int] = defaultdict(int)
        self._named: dict[int, set[str]] = defaultdict(set)  # domid -> paths whose perms name it
        for path in ("/", *SPECIAL):
            self._put(path, b"", (("n", DOM0),), Kids(self.next()))
        for path in ("/tool", "/tool/xenstored"):
            self._add(path, b"", (("n", DOM0),))

    def next(self) -> int:
        """Begin the next generation and return it."""
        self.generation += 1
        return self.generation

    def seen(self, path: str, kind: str = "node") -> Node | None:
        return self.nodes.get(path)

    def listing(self, path: str) -> bytes:
        return self.nodes[path].kids.listing()

    def children_size(self, path: str) -> int:
        node = self.nodes.get(path)
        return 0 if node is None else node.kids.size

    def generation_of(self, path: str) -> int:
        node = self.nodes[path]
        return max(node.gen, node.kids.gen)

    def owned(self, domid: int) -> int:
        return self._owned[domid]

    def take_changes(self) -> list[Change]:
        """Return the changes since the last call, and forget them."""
        changes, self.changes = self.changes, []
        return changes

    def forget(self, domid: int) -> None:
        """Remove the nodes that a domain owned, and its domid from all permissions."""
        for path in sorted(self._named.pop(domid, ())):
            node = self.nodes.get(path)
            if node is None:
                continue
            if node.perms[0][1] == domid and path.startswith("/") and path != "/":
                self._remove_all(path)
                continue
            perms = tuple(entry for entry in node.perms[1:] if entry[1] != domid)
            owner = DOM0 if node.perms[0][1] == domid else node.perms[0][1]
            self._set(path, node.value, ((node.perms[0][0], owner), *perms))
        self._named.pop(domid, None)
        self._owned.pop(domid, None)

    def check(self) -> list[str]:
        """Check the whole tree. Returns a line for each inconsistency."""
        wrong = []
        owned: dict[int, int] = defaultdict(int)
        for path, node in self.nodes.items():
            owned[node.perms[0][1]] += 1
            if path.startswith("/") and path != "/":
                above = self.nodes.get(parent(path))
                if above is None or leaf(path) not in above.kids.names:
                    wrong.append(f"{path}: its parent does not list it")
            base = "" if path == "/" else path
            for name in node.kids.names:
                if f"{base}/{name}" not in self.nodes:
                    wrong.append(f"{path}: lists {name}, which is not there")
            if node.kids.size != sum(len(name) + 1 for name in node.kids.names):
                wrong.append(f"{path}: size of names {node.kids.size}")
        for domid in owned.keys() | self._owned.keys():
            if owned[domid] != self._owned[domid]:
                wrong.append(f"domain {domid} owns {owned[domid]}, counted {self._owned[domid]}")
        return wrong

    def _put(self, path: str, value: bytes, perms: Perms, kids: Kids) -> None:
        self.nodes[path] = Node(value, perms, self.next(), kids)
        self._owned[perms[0][1]] += 1
        for _, domid in perms:
            if domid != DOM0:
                self._named[domid].add(path)

    def _take(self, path: str) -> Node:
        node = self.nodes.pop(path)
        self._owned[node.perms[0][1]] -= 1
        for _, domid in node.perms:
            if domid in self._named:
                self._named[domid].discard(path)
        return node

    def _add(self, path: str, value: bytes, perms: Perms) -> None:
        self._put(path, value, perms, Kids(self.next()))
        self.nodes[parent(path)].kids.add(leaf(path), self.next())

    def _set(self, path: str, value: bytes, perms: Perms) -> None:
        node = self.nodes[path]
        if node.perms == perms:
            self.nodes[path] = Node(value, perms, self.next(), node.kids)
        else:
            self._put(path, value, perms, self._take(path).kids)

    def _remove(self, path: str) -> None:
        self._take(path)
        self.nodes[parent(path)].kids.drop(leaf(path), self.next())

    def _changed(self, path: str, *perms: Perms, exact: bool = False) -> None:
        self.changes.append(Change(path, perms, exact))
