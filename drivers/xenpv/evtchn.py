"""Event channels: make them, send and take events, close them.

Used by the loop and by every driver with a ring. Rule: a pending bit is cleared before its ring is
looked at. After a crash without soft reset the domain may still use the crashed kernel's FIFO
interface; then no event shows in the bits of the shared page, which shows_events() finds out.
Source: xen/include/public/event_channel.h.
"""

import hw

from . import abi
from .errors import XenError


class EventChannels:
    """The event channels of this domain, in the 2-level interface.

    Args:
        xen: Hypercalls.

    Raises: XenError when Xen has not mapped the shared page.
    """

    def __init__(self, xen):
        self.xen = xen
        page = hw.shared_info()
        if page == 0:
            raise XenError("no shared_info page: Xen refused to map it")
        self._pending = page + abi.SHARED_INFO_EVTCHN_PENDING

    def _op(self, what, cmd, fmt, *fields):
        return self.xen.call(what, abi.HYPERVISOR_event_channel_op, cmd, fmt, *fields)

    def alloc_unbound(self, remote):
        """Make a port that domain `remote` may bind. Returns it. Raises XenError."""
        self._op(
            "EVTCHNOP_alloc_unbound for domain %d" % remote,
            abi.EVTCHNOP_alloc_unbound,
            abi.EVTCHN_ALLOC_UNBOUND,
            *(abi.DOMID_SELF, remote, 0),
        )
        port = self.xen.result("<I", abi.EVTCHN_ALLOC_UNBOUND_PORT)
        self.check(port, "EVTCHNOP_alloc_unbound")
        return port

    def bind_interdomain(self, remote, remote_port):
        """Bind to the port that domain `remote` offers. Returns our port. Raises HypercallError."""
        self._op(
            "EVTCHNOP_bind_interdomain domain %d port %d" % (remote, remote_port),
            abi.EVTCHNOP_bind_interdomain,
            abi.EVTCHN_BIND_INTERDOMAIN,
            *(remote, 0, remote_port, 0),
        )
        return self.xen.result("<I", abi.EVTCHN_BIND_INTERDOMAIN_LOCAL_PORT)

    def send(self, port):
        """Send an event to the other end. Raises HypercallError."""
        self._op("EVTCHNOP_send port %d" % port, abi.EVTCHNOP_send, abi.EVTCHN_SEND, port)

    def close(self, port):
        """Close a port. Raises HypercallError."""
        self._op("EVTCHNOP_close port %d" % port, abi.EVTCHNOP_close, abi.EVTCHN_CLOSE, port)

    def take(self, port):
        """Clear the port's pending bit. Returns whether it was set."""
        return hw.test_and_clear_bit(self._pending, port)

    def shows_events(self):
        """Return whether events show in the bits of the shared page, tried on a loopback."""
        near = self.alloc_unbound(abi.DOMID_SELF)
        try:
            far = self.bind_interdomain(abi.DOMID_SELF, near)
            try:
                # Binding may have raised one event already.
                self.take(near)
                self.send(far)
                return self.take(near)
            finally:
                self.close(far)
        finally:
            self.close(near)

    def check(self, port, name):
        """Refuse a port number that cannot be one. name: whose it is. Raises XenError."""
        if not 0 < port < abi.EVTCHN_2L_NR_CHANNELS:
            raise XenError("%s: event channel port %d is not valid" % (name, port))
