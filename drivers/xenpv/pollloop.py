"""The loop of a guest: one SCHEDOP_poll on all event channels when no task can run.

Made once by the firmware. An event is a hint: who waits for a port looks at its ring again,
whether the event came, was lost or was another's. The loop feeds the watchdog, so a loop that
stands still ends the domain.
Source: xen/include/public/sched.h; xen/common/sched/core.c (do_poll).
"""

import hw

from .loop import SECOND, Loop, Signal

# A poll is never longer, so that a lost event costs this much and the watchdog is fed.
POLL_MAX = SECOND // 4
# The poll of a domain whose event bits are dead.
POLL_DEAF = SECOND // 1000
WATCHDOG_SECONDS = 30


class PollLoop(Loop):
    """xen: Hypercalls; evtchn: EventChannels. Its clock is Xen system time."""

    def __init__(self, xen, evtchn):
        super().__init__(hw.now)
        self.xen = xen
        self.evtchn = evtchn
        self._ports = {}
        self._ports_page = hw.alloc_pages(1)
        self._fed = None
        self.deaf = not evtchn.heard()

    def port(self, port):
        """The signal of an event channel port of ours."""
        if port not in self._ports:
            self._ports[port] = Signal()
        return self._ports[port]

    def forget(self, port):
        """The port is closed: do not poll it any more."""
        self._ports.pop(port, None)

    def _turn(self):
        now = hw.now()
        if self._fed is None or now - self._fed > SECOND:
            self._fed = now
            hw.watchdog(WATCHDOG_SECONDS)

    def _block(self, until):
        now = hw.now()
        limit = now + (POLL_DEAF if self.deaf else POLL_MAX)
        if until is None or until > limit:
            until = limit
        ports = [port for port, signal in self._ports.items() if signal.waited_for()]
        if until > now:
            self._poll([] if self.deaf else ports, until)
        heard = [port for port in ports if self.evtchn.take(port)]
        # Nothing heard although the time is over: events may be lost, so everyone looks.
        for port in heard if heard or hw.now() < until else ports:
            self._ports[port].set()

    def _poll(self, ports, until):
        """Block in Xen until one of the ports has an event, or Xen time `until`."""
        for i, port in enumerate(ports):
            hw.wr32(self._ports_page + 4 * i, port)
        self.xen.poll(self._ports_page, len(ports), until)
