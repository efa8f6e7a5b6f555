"""The part of an embedded Xen that its domains share: time, event channels, the list of domains.

Made by the toolstack, or by a machine that is the only one. Domain 0 has no machine here: it is the
other side, this process, and acts by direct calls.
"""

from __future__ import annotations

from errno import ESRCH
from typing import TYPE_CHECKING

from .clock import SECOND, Clock
from .evtchn import EventChannels, XenRefuses

if TYPE_CHECKING:
    from .machine import Machine

DOM0 = 0


class Hypervisor:
    """One Xen: its clock, its event channels, its domains.

    Args:
        seed: of all that is random, see clock.py.
        now: Xen's system time at the start, ns.
    """

    def __init__(self, seed: int = 0, now: int = 1000 * SECOND) -> None:
        self.clock = Clock(seed, now)
        self.evtchn = EventChannels(self)
        self.machines: dict[int, Machine] = {}
        self.log: list[str] = []  # what Xen says on its console

    def machine(self, domid: int) -> Machine:
        """Return the machine of a domain. Refuses one that is not there, or is domain 0."""
        try:
            return self.machines[domid]
        except KeyError:
            raise XenRefuses(ESRCH) from None

    def exists(self, domid: int) -> bool:
        """Return whether there is such a domain."""
        return domid == DOM0 or domid in self.machines
