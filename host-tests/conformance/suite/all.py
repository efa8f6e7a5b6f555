"""All cases of the suite: a module's are registered when it is imported."""

from . import domains, flight, nodes, packets, paths, perms, quotas, transactions, watches
from .case import CASES, DOM0, GUEST, run

__all__ = ["CASES", "DOM0", "GUEST", "MODULES", "run"]
MODULES = (domains, flight, nodes, packets, paths, perms, quotas, transactions, watches)
