"""The server's record of a domain: identity, features, quotas.

The server makes a record at INTRODUCE, or earlier if features or quotas are set for a domain that
is yet to come. The rule: domain 0 may do everything and has no quota; a domain with a target has
the target's rights beside its own. Defaults and errors are those of C xenstored 4.17 and 4.20.
Source: Xen docs/misc/xenstore.txt, SET_TARGET, SET_FEATURE, SET_QUOTA.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from xenpv import abi

if TYPE_CHECKING:
    from .connection import ClientConnection

DOM0 = 0


class StoreError(Exception):
    """A request is answered with an error; code is its name on the wire, such as ENOENT."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


class Transport(Protocol):
    """A carrier of a domain's bytes; the server closes it when the domain is released."""

    def close(self) -> None:
        """End the transport."""


@dataclass(frozen=True)
class Quota:
    """A limit for a domain.

    Args:
        default: the largest allowed number, 0 for no limit.
        error: the error for a request that goes beyond it.
        what: the counted thing, as CONTROL prints it.
    """

    default: int
    error: str
    what: str


QUOTAS = {
    "nodes": Quota(1000, "ENOSPC", "Nodes per domain"),
    "watches": Quota(128, "E2BIG", "Watches per domain"),
    "outstanding": Quota(20, "", "Outstanding requests per domain; more are not read"),
    "transactions": Quota(10, "ENOSPC", "Active transactions per domain"),
    "transaction-nodes": Quota(1024, "ENOSPC", "Nodes accessed per transaction"),
    "node-permissions": Quota(5, "ENOSPC", "Permissions per node"),
    "path-max": Quota(abi.XENSTORE_REL_PATH_MAX, "EINVAL", "Bytes of a path"),
    "node-size": Quota(2048, "ENOSPC", "Bytes of a node with its children's names"),
}


class DomainRecord:
    """The server's record of one domain, whether it is connected or not."""

    def __init__(self, domid: int, features: int, quotas: dict[str, int]) -> None:
        self.domid = domid
        self.home = f"/local/domain/{domid}"
        self.features = features
        self.quotas = dict(quotas)
        self.target: int | None = None
        self.introduced = domid == DOM0
        self.shut_down = False
        self.connection: ClientConnection | None = None
        self.transport: Transport | None = None

    def limit(self, name: str) -> int | None:
        """Return the quota of this name for this domain, None for no limit."""
        return None if self.domid == DOM0 else self.quotas[name] or None

    def check(self, name: str, count: int) -> None:
        """Raise StoreError with the quota's error if `count` exceeds it."""
        limit = self.limit(name)
        if limit is not None and count > limit:
            raise StoreError(QUOTAS[name].error)
