"""Event channels: make, tell, close, and see what is pending.

Used by the loop and by every driver with a ring. A pending bit is cleared before its ring is
looked at. After a crash without soft reset the domain may still be on the FIFO interface of the
kernel that died: then the bits of the shared page are dead, which heard() finds out with a channel
to oneself.
Source: xen/include/public/event_channel.h.
"""

import hw

from . import abi
from .errors import XenError


class EventChannels:
    def __init__(self, xen):
        self.xen = xen
        page = hw.shared_info()
        if page == 0:
            raise XenError("no shared_info page: Xen refused to map it")
        self._pending = page + abi.SHARED_INFO_EVTCHN_PENDING

    def _op(self, what, cmd, fmt, *fields):
        return self.xen.call(what, abi.HYPERVISOR_event_channel_op, cmd, fmt, *fields)

    def alloc_unbound(self, remote):
        """A new port that domain `remote` may bind. Returns the port."""
        self._op(
            "EVTCHNOP_alloc_unbound for domain %d" % remote,
            abi.EVTCHNOP_alloc_unbound,
            "<HHI",
            abi.DOMID_SELF,
            remote,
            0,
        )
        port = self.xen.result("<I", abi.EVTCHN_ALLOC_UNBOUND_PORT)
        self.check(port, "EVTCHNOP_alloc_unbound")
        return port

    def bind_interdomain(self, remote, remote_port):
        """Bind to the port that domain `remote` offers. Returns the local port."""
        what = "EVTCHNOP_bind_interdomain domain %d port %d" % (remote, remote_port)
        self._op(what, abi.EVTCHNOP_bind_interdomain, "<HHII", remote, 0, remote_port, 0)
        return self.xen.result("<I", 8)

    def send(self, port):
        self._op("EVTCHNOP_send port %d" % port, abi.EVTCHNOP_send, "<I", port)

    def close(self, port):
        self._op("EVTCHNOP_close port %d" % port, abi.EVTCHNOP_close, "<I", port)

    def take(self, port):
        """Clear the port's pending bit. Returns whether it was set."""
        return hw.test_and_clear_bit(self._pending, port)

    def heard(self):
        """Whether an event of this domain shows in the pending bits of the shared page."""
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
        """Refuse a port number that cannot be one. Raises XenError."""
        if not 0 < port < abi.EVTCHN_2L_NR_CHANNELS:
            raise XenError("%s: event channel port %d is not valid" % (name, port))
