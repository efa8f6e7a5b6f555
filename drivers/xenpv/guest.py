"""This guest's own drivers, made once: hypercalls, event channels, loop, xenstore client, grants.

Made by the firmware's main, by programs that run as guests, and by tests. Rule: code that needs one
of the parts is given the Guest or that part and makes none of its own, because two grant tables or
two loops in one domain would use the same memory for different things.
"""

from .evtchn import EventChannels
from .gnttab import GrantTable
from .hypercall import Hypercalls
from .pollloop import PollLoop
from .xenstore.client import Xenstore
from .xenstore.ring import RingTransport


class Guest:
    """The drivers of the domain that this code runs in.

    Args:
        xen: Hypercalls, or None to make them.
        loop: the class of the loop, a PollLoop.

    Attributes: xen (Hypercalls), evtchn (EventChannels), loop (PollLoop), store (Xenstore, not yet
    connected). Raises: XenError when Xen does not map the shared page.
    """

    def __init__(self, xen=None, loop=PollLoop):
        self.xen = xen or Hypercalls()
        self.evtchn = EventChannels(self.xen)
        self.loop = loop(self.xen, self.evtchn)
        self.store = self.new_store()
        self._grants = None

    def new_store(self):
        """Make another client of the shared ring, for use after the last one has been closed."""
        self.store = Xenstore(self.loop, RingTransport(self.xen, self.loop))
        return self.store

    @property
    def grants(self):
        """Return the grant table; its pages are taken at the first use."""
        if self._grants is None:
            self._grants = GrantTable(self.xen)
        return self._grants
