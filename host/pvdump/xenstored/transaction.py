"""A transaction: what it has seen and what it changes, on top of the tree until it commits.

Made by connections. It holds only what it touched: each node as it was first seen, and its own
version of the nodes it changed. The commit fails with EAGAIN if a node that it read or wrote, or a
list of children that it read, was changed by others meanwhile. A new child is no change of its
parent, so two transactions that make different children of one node both commit.
Source: Xen docs/misc/xenstore.txt, Transactions ("only writes or other commits which changed paths
which were read or written in the transaction at hand").
"""

from __future__ import annotations

from collections import defaultdict
from typing import Union

from .domain import DomainRecord, StoreError
from .nodes import Change, Kids, Node, Nodes, Perms, leaf, names_of, parent
from .tree import Tree

Version = Union[int, Perms, None]


class Transaction(Nodes):
    """One domain's view of a tree until commit(), or until it is dropped."""

    def __init__(self, base: Tree, who: DomainRecord) -> None:
        self.base = base
        self.who = who
        self.failed = False  # whether it went beyond a quota and cannot commit
        self._held: dict[str, Node | None] = {}  # as first seen in the tree
        self._seen: dict[tuple[str, str], Version] = {}
        self._lists: dict[str, bytes] = {}  # listings of children as first seen
        self._own: dict[str, Node | None] = {}  # changed here, None when removed; parents first
        self._fresh: set[str] = set()  # of _own, those made here: nothing below the tree's counts
        self._kids: dict[str, dict[str, bool]] = {}  # children made (True) or removed here
        self._gens: dict[str, int] = {}
        self._owned: dict[int, int] = defaultdict(int)
        self._changes: dict[str, bool] = {}  # path -> exact

    def seen(self, path: str, kind: str = "node") -> Node | None:
        if path in self._own:
            return self._own[path]
        node = self._hold(path)
        if (path, kind) not in self._seen:
            version: Version = None
            if node is not None:
                version = node.gen if kind == "node" else node.perms
            self._seen[path, kind] = version
        return node

    def listing(self, path: str) -> bytes:
        if path in self._fresh:
            node = self._own[path]
            assert node is not None
            return node.kids.listing()
        if path not in self._lists:
            node = self._hold(path)
            assert node is not None
            self._lists[path] = node.kids.listing()
            self._seen[path, "children"] = node.kids.gen
        changed = self._kids.get(path)
        if not changed:
            return self._lists[path]
        names = [name for name in names_of(self._lists[path]) if name not in changed]
        names += [name for name, there in changed.items() if there]
        return "".join(f"{name}\0" for name in names).encode()

    def children_size(self, path: str) -> int:
        node = self._own[path] if path in self._own else self._held.get(path)
        if node is None:
            return 0
        size = node.kids.size
        for name, there in self._kids.get(path, {}).items():
            if there != (name in node.kids.names):
                size += (1 if there else -1) * (len(name) + 1)
        return size

    def generation_of(self, path: str) -> int:
        held = self._held.get(path)
        seen = 0 if held is None else max(held.gen, held.kids.gen)
        return self._gens.get(path, seen)

    def owned(self, domid: int) -> int:
        return self.base.owned(domid) + self._owned[domid]

    def commit(self) -> None:
        """Make all changes in the tree, or none. Raises StoreError EAGAIN, ENOSPC, ENOMEM."""
        if self.failed:
            raise StoreError("ENOMEM")
        base = self.base
        if any(self._version(*key) != version for key, version in self._seen.items()):
            raise StoreError("EAGAIN")
        if self._fresh:
            self.who.check("nodes", self.owned(self.who.domid))
        before = {path: base.nodes.get(path) for path in self._changes}
        gone = [p for p in self._own if p in base.nodes and (p in self._fresh or not self._own[p])]
        for path in sorted(gone, key=len, reverse=True):
            base._remove(path)
        for path, node in self._own.items():
            if node is None:
                continue
            if path in base.nodes:
                base._set(path, node.value, node.perms)
            else:
                base._add(path, node.value, node.perms)
        for path, exact in self._changes.items():
            nodes = (before[path], base.nodes.get(path))
            perms = tuple(node.perms for node in nodes if node is not None)
            if perms:
                base.changes.append(Change(path, perms, exact))

    def _hold(self, path: str) -> Node | None:
        if path not in self._held:
            limit = self.who.limit("transaction-nodes")
            if limit is not None and len(self._held) >= limit:
                self.failed = True
            if self.failed:
                raise StoreError("ENOSPC")
            self._held[path] = self.base.nodes.get(path)
        return self._held[path]

    def _version(self, path: str, kind: str) -> Version:
        node = self.base.nodes.get(path)
        if node is None:
            return None
        if kind == "children":
            return node.kids.gen
        return node.gen if kind == "node" else node.perms

    def _add(self, path: str, value: bytes, perms: Perms) -> None:
        gen = self.base.next()
        self._own.pop(path, None)  # it goes behind its parent, which may have been made anew
        self._own[path] = Node(value, perms, gen, Kids(gen))
        self._gens[path] = gen
        self._fresh.add(path)
        self._owned[perms[0][1]] += 1
        self._link(path, True)

    def _set(self, path: str, value: bytes, perms: Perms) -> None:
        node = self._own[path] if path in self._own else self._held[path]
        assert node is not None
        self._owned[node.perms[0][1]] -= 1
        self._owned[perms[0][1]] += 1
        self._gens[path] = self.base.next()
        self._own[path] = Node(value, perms, self._gens[path], node.kids)

    def _remove(self, path: str) -> None:
        node = self._own[path] if path in self._own else self._held[path]
        assert node is not None
        self._owned[node.perms[0][1]] -= 1
        self._own[path] = None
        self._fresh.discard(path)
        self._kids.pop(path, None)
        self._link(path, False)

    def _link(self, path: str, there: bool) -> None:
        """Add a node to its parent's list of children, or remove it there."""
        above, name = parent(path), leaf(path)
        gen = self._gens[above] = self.base.next()
        if above in self._fresh:
            node = self._own[above]
            assert node is not None
            if there:
                node.kids.add(name, gen)
            elif name in node.kids.names:  # not so when its old parent was removed by others
                node.kids.drop(name, gen)
            return
        changed = self._kids.setdefault(above, {})
        changed.pop(name, None)
        changed[name] = there

    def _changed(self, path: str, *perms: Perms, exact: bool = False) -> None:
        self._changes[path] = self._changes.get(path, True) and exact
