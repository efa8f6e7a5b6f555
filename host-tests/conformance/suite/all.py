"""All cases of the suite, in the order in which they run."""

from . import domains, flight, nodes, packets, paths, perms, quotas, transactions, watches
from .case import CASES, DOM0, GUEST, run

__all__ = ["CASES", "DOM0", "GUEST", "run"]
MODULES = (nodes, paths, perms, watches, transactions, packets, flight, domains, quotas)
