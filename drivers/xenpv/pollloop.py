"""The loop of a guest: one SCHEDOP_poll on all event channels when no task can run.

Made once, by guest.Guest. An event is a hint: a task that waits for a port looks at its ring again,
whether the event came, was lost or was another's. The loop sets the watchdog again each second, so
a loop that stands still ends the domain.
Source: xen/include/public/sched.h; xen/common/sched/core.c (do_poll).
"""

import hw

from .loop import SECOND, Loop, Signal

# The longest poll: a lost event costs no more time.
POLL_MAX = SECOND // 4
# The longest poll of a domain in whose shared page no event shows.
POLL_BLIND = SECOND // 1000
WATCHDOG_SECONDS = 30


class PollLoop(Loop):
    """The loop of this domain; its clock is that of Hypercalls.now().

    Args:
        xen: Hypercalls.
        evtchn: EventChannels.

    Attributes: shows_events, whether events show in the shared page; ports, the Signal of each one
    that somebody has waited for.
    """

    def __init__(self, xen, evtchn):
        super().__init__(xen.now)
        self.xen = xen
        self.evtchn = evtchn
        self.ports = {}
        self._ports_page = hw.alloc_pages(1)
        # When the watchdog was last set.
        self._watchdog_at = None
        self.shows_events = evtchn.shows_events()

    def port(self, port):
        """Return the Signal of one of this domain's event channel ports."""
        if port not in self.ports:
            self.ports[port] = Signal()
        return self.ports[port]

    def forget(self, port):
        """Poll a port no more: it is closed."""
        self.ports.pop(port, None)

    def _turn(self):
        now = self.now()
        if self._watchdog_at is None or now - self._watchdog_at > SECOND:
            self._watchdog_at = now
            hw.watchdog(WATCHDOG_SECONDS)

    def _block(self, until):
        now = self.now()
        limit = now + (POLL_MAX if self.shows_events else POLL_BLIND)
        if until is None or until > limit:
            until = limit
        ports = [port for port, signal in self.ports.items() if signal.waited_for()]
        if until > now:
            self._poll(ports if self.shows_events else [], until)
        woken = [port for port in ports if self.evtchn.take(port)]
        # No event although the time is over: one may be lost, so all tasks look.
        for port in woken if woken or self.now() < until else ports:
            self.ports[port].set()

    def _poll(self, ports, until):
        """Block in Xen until one of the ports has an event, or the time `until`."""
        for i, port in enumerate(ports):
            hw.wr32(self._ports_page + 4 * i, port)
        self.xen.poll(self._ports_page, len(ports), until)
