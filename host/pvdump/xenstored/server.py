"""The store: one tree, its domains and connections, and all watches.

Transports ask it for connections. The toolstack and the backends of the embedded Xen call it
directly, as domain 0. Watches fire after a change, never during it; a change that is made from
within a watch's call is told after the changes before it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping

from xenpv import abi
from xenpv.xenstore import wire

from ..streams import one_line
from .connection import ClientConnection
from .domain import DOM0, QUOTAS, DomainRecord, StoreError, Transport
from .nodes import check_path, names_of
from .outgoing import Request
from .requests import parse_perms
from .tree import SPECIAL, Tree
from .watches import LocalListener, Watch, Watches

FEATURES = (
    abi.XENSTORE_SERVER_FEATURE_RECONNECTION
    | abi.XENSTORE_SERVER_FEATURE_ERROR
    | wire.SERVER_FEATURE_WATCHDEPTH
)


class Xenstored:
    """The server.

    Args:
        features: server_features that are offered.
        quotas: quotas that differ from C xenstored's, 0 for no limit.

    Attributes:
        attach: called with (domid, gfn, port) to make the ring of a domain that a client
            introduces; None without a Xen: the domain counts as introduced then and has no ring.
        trace: called with a line of text for each packet, or None.
        log: called with each message, a line of text.
    """

    def __init__(self, features: int = FEATURES, quotas: Mapping[str, int] | None = None) -> None:
        self.features = features
        self.quotas = {name: quota.default for name, quota in QUOTAS.items()} | dict(quotas or {})
        self.tree = Tree()
        self.watches = Watches()
        self.domains: dict[int, DomainRecord] = {}
        self.attach: Callable[[int, int, int], Transport] | None = None
        self.trace: Callable[[str], None] | None = None
        self.cause: Request | None = None  # the request whose events are told just now
        self.log: Callable[[str], None] = _say
        self._dom0 = self.domain(DOM0)
        self._local: list[tuple[str, Callable[[], None], Watch]] = []
        self._firing = False

    # Domains.

    def domain(self, domid: int) -> DomainRecord:
        """Return the record of a domain, made here if there is none."""
        if domid not in self.domains:
            self.domains[domid] = DomainRecord(domid, self.features, self.quotas)
        return self.domains[domid]

    def known(self, domid: int) -> DomainRecord:
        """Return the record of a domain. Raises StoreError ENOENT if there is none."""
        if domid not in self.domains:
            raise StoreError("ENOENT")
        return self.domains[domid]

    def introduced(self, domid: int) -> DomainRecord:
        """Return the record of an introduced domain. Raises StoreError ENOENT if it is not."""
        domain = self.known(domid)
        if not domain.introduced:
            raise StoreError("ENOENT")
        return domain

    def connect(self, domid: int, client: str | None = None) -> ClientConnection:
        """Make a connection that acts as a domain. client: its name in traces."""
        return ClientConnection(self, self.domain(domid), client or f"dom{domid}")

    def disconnect(self, connection: ClientConnection) -> None:
        """Forget all that a client had, and its transport."""
        connection.reset()
        connection.detach()

    def introduce(self, domid: int, transport: Transport | None = None) -> ClientConnection:
        """Introduce a domain; done again, its connection starts anew, on this transport."""
        domain = self.domain(domid)
        again = domain.introduced
        if domain.transport is not None and domain.transport is not transport:
            domain.transport.close()
        if domain.connection is None:
            domain.connection = self.connect(domid)
        else:
            self.disconnect(domain.connection)
        domain.introduced, domain.shut_down, domain.transport = True, False, transport
        if not again:
            self._special("@introduceDomain", domid)
        return domain.connection

    def introduce_at(self, domid: int, gfn: int, port: int) -> None:
        """Introduce a domain as a client asks: through attach, which calls introduce()."""
        if self.attach is None:
            self.introduce(domid)
        else:
            self.attach(domid, gfn, port)

    def release(self, domid: int) -> None:
        """Remove a domain: its ring, its nodes, its domid in permissions. Raises StoreError."""
        domain = self.introduced(domid)
        if domain.connection is not None:
            self.disconnect(domain.connection)
        if domain.transport is not None:
            domain.transport.close()
        del self.domains[domid]
        for other in self.domains.values():
            if other.target == domid:
                other.target = None
        self.tree.forget(domid)
        self.fire()
        self._special("@releaseDomain", domid)

    def shut_down(self, domid: int) -> None:
        """Note that a domain shut down or crashed: it is told once until the domain is resumed."""
        domain = self.introduced(domid)
        if not domain.shut_down:
            domain.shut_down = True
            self._special("@releaseDomain", domid)

    def usage(self, domain: DomainRecord) -> dict[str, int]:
        """Return a domain's use of each quota that counts something."""
        connection = domain.connection
        return {
            "nodes": self.tree.owned(domain.domid),
            "watches": 0 if connection is None else len(connection.watches),
            "transactions": 0 if connection is None else len(connection.transactions),
            "outstanding": 0 if connection is None else connection.outstanding,
        }

    def _special(self, name: str, domid: int) -> None:
        self.watches.fire_special(name, domid, self.tree.nodes[name].perms)

    # Watches.

    def fire(self, cause: Request | None = None) -> None:
        """Fire the watches for all changes so far. cause: the request that made them."""
        if self._firing or not self.tree.changes:
            return
        self._firing = True
        self.cause = cause
        try:
            while self.tree.changes:
                self.watches.fire(self.tree.take_changes())
                self.cause = None
        finally:
            self._firing = False
            self.cause = None

    # As domain 0, from this process.

    def watch(self, path: str, tell: Callable[[], None]) -> None:
        """Have tell() called after every change at or below path; it must not wait."""
        known = path if path in SPECIAL else check_path(path)
        watch = Watch(LocalListener(self._dom0), known, lambda changed: tell())
        self._local.append((path, tell, watch))
        self.watches.add(watch)

    def unwatch(self, path: str, tell: Callable[[], None]) -> None:
        """End a watch. Raises ValueError when there is none."""
        for entry in self._local:
            if entry[:2] == (path, tell):
                self._local.remove(entry)
                self.watches.remove(entry[2])
                return
        raise ValueError(f"no watch of {path}")

    def read(self, path: str, default: str | None = None) -> str:
        """Return a node's value as text. Raises StoreError, unless a default is given."""
        try:
            return self.tree.read(self._dom0, path).decode("latin-1")
        except StoreError:
            if default is None:
                raise
            return default

    def write(self, path: str, value: object, perms: str | None = None) -> None:
        """Set a node; perms: such as "n1 r0"."""
        self.tree.write(self._dom0, check_path(path), str(value).encode("latin-1"))
        if perms is not None:
            self.tree.set_perms(self._dom0, path, parse_perms(perms.encode().split()))
        self.fire()

    def rm(self, path: str) -> None:
        """Remove a node and all below it. Raises StoreError ENOENT without a parent."""
        self.tree.rm(self._dom0, check_path(path))
        self.fire()

    def exists(self, path: str) -> bool:
        """Return whether there is such a node."""
        return self.tree.exists(path)

    def directory(self, path: str) -> Iterable[str]:
        """Return the names of the children. Raises StoreError ENOENT."""
        return names_of(self.tree.directory(self._dom0, path))


def _say(line: str) -> None:
    print(one_line(line), file=sys.stderr, flush=True)
