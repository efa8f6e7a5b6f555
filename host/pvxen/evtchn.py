"""Event channels of the embedded Xen: the ports of all domains, and the delivery of events.

Used by the hypercalls for guests, and directly by the other side (store, backends). An event for a
guest goes to the interface that its kernel chose (evtchn_2l.py, evtchn_fifo.py); one for the other
side asks for a step. Faults intercept a port to lose, double or delay its events.
Source: Xen public/event_channel.h; xen/common/event_channel.c for the order of checks.
"""

from __future__ import annotations

from errno import EINVAL, ENOSPC, ESRCH
from typing import TYPE_CHECKING

from xenpv import abi

from .clock import Step
from .public import EVTCHN_FIFO_PRIORITY_DEFAULT

if TYPE_CHECKING:
    from .hypervisor import Hypervisor


class XenRefuses(Exception):
    """A hypercall's negative answer."""

    def __init__(self, errno: int) -> None:
        super().__init__(f"errno {errno}")
        self.errno = errno


class Port:
    """One end of a channel.

    Attributes:
        state: one of EVTCHNSTAT_*.
        step: the step of the other side that an event asks for, or None.
        intercept: called in place of an event's delivery; it may call EventChannels.deliver().
    """

    def __init__(self, domid: int, number: int, remote_domid: int) -> None:
        self.domid = domid
        self.number = number
        self.state = abi.EVTCHNSTAT_unbound
        self.remote_domid = remote_domid
        self.remote_port = 0
        self.priority = EVTCHN_FIFO_PRIORITY_DEFAULT
        self.step: Step | None = None
        self.intercept: Step | None = None


class EventChannels:
    """The ports of all domains of one Xen.

    Attributes:
        ports: by (domid, port number).
        sent (int): events sent so far.
    """

    def __init__(self, hypervisor: Hypervisor) -> None:
        self._hypervisor = hypervisor
        self.ports: dict[tuple[int, int], Port] = {}
        self.sent = 0

    def port(self, domid: int, number: int) -> Port:
        """Return a port. Raises XenRefuses EINVAL if there is none."""
        try:
            return self.ports[domid, number]
        except KeyError:
            raise XenRefuses(EINVAL) from None

    def of(self, domid: int) -> list[Port]:
        """List the ports of one domain, in order."""
        return [self.ports[key] for key in sorted(self.ports) if key[0] == domid]

    def limit(self, domid: int) -> int:
        """Return one more than the highest port number that a domain may have."""
        machine = self._hypervisor.machines.get(domid)
        return machine.events.limit if machine else abi.EVTCHN_2L_NR_CHANNELS

    def alloc_unbound(self, domid: int, remote_domid: int) -> int:
        """Make a port of `domid` that `remote_domid` may bind. Returns its number."""
        machine = self._hypervisor.machines.get(domid)
        for number in range(1, self.limit(domid)):
            if (domid, number) in self.ports or (machine and machine.events.is_busy(number)):
                continue
            self.ports[domid, number] = Port(domid, number, remote_domid)
            return number
        raise XenRefuses(ENOSPC)

    def bind_interdomain(self, domid: int, remote_domid: int, remote_port: int) -> int:
        """Bind a new port of `domid` to one that is offered to it. Returns its number."""
        if not self._hypervisor.exists(remote_domid):
            raise XenRefuses(ESRCH)
        far = self.port(remote_domid, remote_port)
        if far.state != abi.EVTCHNSTAT_unbound or far.remote_domid != domid:
            raise XenRefuses(EINVAL)
        number = self.alloc_unbound(domid, remote_domid)
        near = self.ports[domid, number]
        near.state = far.state = abi.EVTCHNSTAT_interdomain
        near.remote_port, far.remote_port = remote_port, number
        # Events sent before now were lost, so the binding domain finds one pending.
        self.deliver(near)
        return number

    def on(self, domid: int, number: int, step: Step) -> None:
        """Set the step that an event at this port of the other side asks for."""
        self.port(domid, number).step = step

    def send(self, domid: int, number: int) -> None:
        """Send an event to the other end; a port without one is no error."""
        near = self.port(domid, number)
        if near.state == abi.EVTCHNSTAT_interdomain:
            self.sent += 1
            far = self.ports[near.remote_domid, near.remote_port]
            if far.intercept is None:
                self.deliver(far)
            else:
                far.intercept()

    def deliver(self, port: Port) -> None:
        """Deliver an event to a port."""
        machine = self._hypervisor.machines.get(port.domid)
        if machine is not None:
            machine.events.set_pending(port)
        elif port.step is not None:
            self._hypervisor.clock.soon(port.step)

    def close(self, domid: int, number: int) -> None:
        """Free a port; its other end is offered again, to the one who closed."""
        near = self.port(domid, number)
        if near.state == abi.EVTCHNSTAT_interdomain:
            far = self.ports[near.remote_domid, near.remote_port]
            far.state = abi.EVTCHNSTAT_unbound
            far.remote_domid, far.remote_port = domid, 0
        machine = self._hypervisor.machines.get(domid)
        if machine is not None:
            machine.events.clear_pending(number)
        del self.ports[domid, number]

    def close_all(self, domid: int) -> None:
        """Close all ports of a domain."""
        for port in self.of(domid):
            self.close(domid, port.number)

    def status(self, domid: int, number: int) -> tuple[int, int, int]:
        """Return (EVTCHNSTAT_*, remote domain, remote port) of a port."""
        if number >= self.limit(domid):
            raise XenRefuses(EINVAL)
        if (domid, number) not in self.ports:
            return abi.EVTCHNSTAT_closed, 0, 0
        port = self.ports[domid, number]
        return port.state, port.remote_domid, port.remote_port
