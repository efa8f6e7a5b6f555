"""Event channels of the embedded Xen: ports of two domains, and what an event does.

Used by the hypercalls for the guest, and directly by the other side (store, backends). An event for
the guest sets bits in shared_info, the 2-level interface; one for the other side asks for a step.
What the crashed kernel left in force is a choice, `events`:
  "2l"    the 2-level interface: pending bits are set, polls end on them
  "fifo"  the FIFO interface of a kernel that is dead: no bit of shared_info is ever touched. The
          first event marks a word that nobody will clear: every poll on that port ends at once
  "dead"  as fifo, but not even a poll sees the event: only deadlines end a wait
Source: Xen public/event_channel.h; xen/common/event_channel.c and event_fifo.c for the order of
checks and for what wakes a poll.
"""

from __future__ import annotations

from errno import EINVAL, ENOSPC, EPERM
from typing import TYPE_CHECKING

from xenpv import abi

from .clock import Step

if TYPE_CHECKING:
    from .machine import Machine

VCPU_INFO_PENDING = 0
VCPU_INFO_PENDING_SEL = 8
VCPU_INFO_SIZE = 64


class XenRefuses(Exception):
    """A hypercall's negative answer."""

    def __init__(self, errno: int) -> None:
        super().__init__(f"errno {errno}")
        self.errno = errno


class Port:
    """One end of a channel. state: one of EVTCHNSTAT_*; step: of the other side, on an event."""

    def __init__(self, domid: int, number: int, remote_domid: int) -> None:
        self.domid = domid
        self.number = number
        self.state = abi.EVTCHNSTAT_unbound
        self.remote_domid = remote_domid
        self.remote_port = 0
        self.pending = False
        self.step: Step | None = None


class EventChannels:
    """events: "2l", "fifo" or "dead", see above."""

    def __init__(self, machine: Machine, events: str) -> None:
        if events not in ("2l", "fifo", "dead"):
            raise ValueError(f'events: "2l", "fifo" or "dead" expected, {events!r} found')
        self.machine = machine
        self.events = events
        self.ports: dict[tuple[int, int], Port] = {}
        self.sent = 0

    def port(self, domid: int, number: int) -> Port:
        try:
            return self.ports[domid, number]
        except KeyError:
            raise XenRefuses(EINVAL) from None

    def alloc_unbound(self, domid: int, remote_domid: int) -> int:
        """A new port of `domid` that `remote_domid` may bind. Returns its number."""
        for number in range(1, abi.EVTCHN_2L_NR_CHANNELS):
            if (domid, number) not in self.ports:
                self.ports[domid, number] = Port(domid, number, remote_domid)
                return number
        raise XenRefuses(ENOSPC)

    def bind_interdomain(self, domid: int, remote_domid: int, remote_port: int) -> int:
        """Bind a new port of `domid` to one that is offered to it. Returns its number."""
        far = self.port(remote_domid, remote_port)
        if far.state != abi.EVTCHNSTAT_unbound or far.remote_domid != domid:
            raise XenRefuses(EINVAL)
        number = self.alloc_unbound(domid, remote_domid)
        near = self.ports[domid, number]
        near.state = far.state = abi.EVTCHNSTAT_interdomain
        near.remote_port, far.remote_port = remote_port, number
        # Events sent before now were lost: whoever binds finds one pending.
        self._deliver(near)
        return number

    def on(self, domid: int, number: int, step: Step) -> None:
        """Name the step that an event at this port of the other side asks for."""
        self.port(domid, number).step = step

    def send(self, domid: int, number: int) -> None:
        """Tell the other end; nobody there is no error."""
        near = self.port(domid, number)
        if near.state == abi.EVTCHNSTAT_interdomain:
            self.sent += 1
            self._deliver(self.ports[near.remote_domid, near.remote_port])

    def close(self, domid: int, number: int) -> None:
        """Free a port; its other end is offered again, to the one who closed."""
        near = self.port(domid, number)
        if near.state == abi.EVTCHNSTAT_interdomain:
            far = self.ports[near.remote_domid, near.remote_port]
            far.state = abi.EVTCHNSTAT_unbound
            far.remote_domid, far.remote_port = domid, 0
        if domid == self.machine.domid:
            self._forget(number)
        del self.ports[domid, number]

    def status(self, domid: int, number: int, caller: int) -> tuple[int, int, int]:
        """(EVTCHNSTAT_*, remote domain, remote port) of a port."""
        if domid != caller:
            raise XenRefuses(EPERM)
        if (domid, number) not in self.ports:
            if number >= abi.EVTCHN_2L_NR_CHANNELS:
                raise XenRefuses(EINVAL)
            return abi.EVTCHNSTAT_closed, 0, 0
        port = self.ports[domid, number]
        return port.state, port.remote_domid, port.remote_port

    def _deliver(self, port: Port) -> None:
        if port.domid != self.machine.domid:
            if port.step is not None:
                self.machine.clock.soon(port.step)
            return
        port.pending = True
        if self.events == "2l":
            view = self.machine.shared_info_page.view
            byte, bit = abi.SHARED_INFO_EVTCHN_PENDING + port.number // 8, 1 << port.number % 8
            view[byte] |= bit
            if not view[byte - abi.SHARED_INFO_EVTCHN_PENDING + abi.SHARED_INFO_EVTCHN_MASK] & bit:
                self._upcall(port.number)

    def _upcall(self, number: int) -> None:
        view = self.machine.shared_info_page.view
        vcpu = VCPU_INFO_SIZE * self.machine.vcpu()
        view[vcpu + VCPU_INFO_PENDING] = 1
        view[vcpu + VCPU_INFO_PENDING_SEL + number // 512] |= 1 << number // 64 % 8

    def unmask(self, number: int) -> None:
        """Let the guest's port raise upcalls, one at once when it is pending."""
        self.port(self.machine.domid, number)
        if self.events != "2l":
            return
        view = self.machine.shared_info_page.view
        byte, bit = number // 8, 1 << number % 8
        view[abi.SHARED_INFO_EVTCHN_MASK + byte] &= 0xFF ^ bit
        if view[abi.SHARED_INFO_EVTCHN_PENDING + byte] & bit:
            self._upcall(number)

    def _forget(self, number: int) -> None:
        """Forget what is pending at a port of the guest that is going away."""
        if self.events == "2l" and number < abi.EVTCHN_2L_NR_CHANNELS:
            view = self.machine.shared_info_page.view
            view[abi.SHARED_INFO_EVTCHN_PENDING + number // 8] &= 0xFF ^ (1 << number % 8)

    def ends_poll(self, number: int) -> bool:
        """Whether a poll on this port of the guest would end now. Masks do not matter here."""
        port = self.port(self.machine.domid, number)
        if self.events == "2l":
            view = self.machine.shared_info_page.view
            byte = view[abi.SHARED_INFO_EVTCHN_PENDING + number // 8]
            return bool(byte & 1 << number % 8)
        return port.pending and self.events == "fifo"

    def upcall_pending(self) -> bool:
        """Whether an unmasked event waits for the guest, which is what ends SCHEDOP_block."""
        view = self.machine.shared_info_page.view
        return bool(view[VCPU_INFO_SIZE * self.machine.vcpu() + VCPU_INFO_PENDING])
