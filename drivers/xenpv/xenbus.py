"""Xenbus: the states through which a front end and its backend find each other.

Used by device front ends. Either side may skip states, so a wait names a set of states. Every wait
ends at the device's deadline, and its error says which device, what was waited for and what was
seen.
Source: xen/include/public/io/xenbus.h.
"""

from .abi import (
    XenbusStateClosed,
    XenbusStateClosing,
    XenbusStateConnected,
    XenbusStateInitialised,
    XenbusStateInitialising,
    XenbusStateInitWait,
    XenbusStateUnknown,
)
from .errors import BackendError, Timeout, XenstoreError
from .loop import SECOND
from .text import decimal

STATE_NAMES = (
    "Unknown",
    "Initialising",
    "InitWait",
    "Initialised",
    "Connected",
    "Closing",
    "Closed",
    "Reconfiguring",
    "Reconfigured",
)
# The keys that a front end writes for its backend begin with these.
NEGOTIATED = (
    "ring-ref",
    "ring-page-order",
    "num-ring-pages",
    "queue-",
    "multi-queue-num-queues",
    "feature-",
    "max-request",
    "event-channel",
    "protocol",
)
# States in which a front end may connect. A backend without InitWait has nothing to offer.
OPEN = (XenbusStateInitWait, XenbusStateInitialised)
CLOSED = (XenbusStateClosed, XenbusStateUnknown)
DOMID_FIRST_RESERVED = 0x7FF0
# Between two looks at the backend's state passes an eighth of the time waited so far, within these.
POLL_MIN = SECOND // 100
POLL_MAX = SECOND


class Refused(BackendError):
    """The backend closed instead of connecting."""


def state_name(state):
    """Give the name of a XenbusState*, also of one that does not exist."""
    return STATE_NAMES[state] if state < len(STATE_NAMES) else "state %d" % state


def poll_period(waited):
    """Give how long to sleep before the next look, in ns, when so many ns were waited."""
    return max(POLL_MIN, min(waited // 8, POLL_MAX))


def seconds(ns):
    """Give a time in ns as whole seconds, rounded, for messages."""
    return (ns + SECOND // 2) // SECOND


class Device:
    """One device of ours and its backend.

    Args:
        store: Xenstore.
        loop: Loop.
        path: the front end's node, such as "device/vbd/51712".

    Attributes: backend, its node, and backend_id, its domain, once found; deadline, the time (ns)
    at which waits for the backend end, which its user sets and may move.
    """

    def __init__(self, store, loop, path):
        self.store = store
        self.loop = loop
        self.path = path
        self.backend = ""
        self.backend_id = 0
        self.deadline = 0

    async def find(self):
        """Read which backend the toolstack chose. Raises BackendError, XenError, Timeout."""
        self.backend = await self.store.read_text(self.path + "/backend")
        self.backend_id = await self.store.read_int(self.path + "/backend-id")
        if self.backend_id >= DOMID_FIRST_RESERVED:
            raise BackendError("%s: backend-id %d is no domain" % (self.path, self.backend_id))

    async def set_state(self, state):
        """Write our state. Raises XenstoreError, Timeout."""
        await self.store.write(self.path + "/state", str(state))

    async def write(self, key, value):
        """Write a key of ours. value: str or int. Raises XenstoreError, Timeout."""
        await self.store.write(self.path + "/" + key, str(value))

    async def state(self):
        """Read our own state, a XenbusState*. Raises XenstoreError, Timeout."""
        return await self._state(self.path)

    async def backend_state(self):
        """Read the backend's state, Unknown if we may not. Raises XenstoreError, Timeout."""
        try:
            return await self._state(self.backend)
        except XenstoreError as e:
            # Servers answer this for a node that is gone if we may not read the node above it.
            if e.code != "EACCES":
                raise
            return XenbusStateUnknown

    async def _state(self, path):
        """Read a state; Unknown where there is no node, or no state in it."""
        text = await self.store.read_text(path + "/state", "")
        return decimal(text, 0, 9) or XenbusStateUnknown

    async def backend_text(self, key):
        """Read a key of the backend, "" if it is not there. Raises XenstoreError, Timeout."""
        return await self.store.read_text(self.backend + "/" + key, "")

    def allow(self, ns):
        """Set the deadline to so many ns from now."""
        self.deadline = self.loop.now() + ns

    async def wait_backend(self, states, doing):
        """Wait until the backend is in one of the states.

        Args:
            states: a tuple of XenbusState*.
            doing: what this wait is part of, for messages.

        Returns: that state.

        Raises: Timeout at the deadline, XenstoreError.
        """
        began = self.loop.now()
        while True:
            state = await self.backend_state()
            if state in states:
                return state
            now = self.loop.now()
            if now >= self.deadline:
                raise Timeout(
                    "%s, %s: backend %s is %s after %d s, %s expected"
                    % (
                        self.path,
                        doing,
                        self.backend,
                        state_name(state),
                        seconds(now - began),
                        " or ".join(state_name(s) for s in states),
                    )
                )
            await self.loop.sleep(min(poll_period(now - began), self.deadline - now))

    async def begin(self):
        """Remove the keys of earlier drivers and wait until the backend can be connected to.

        The device is Initialising, and its backend has no front end any more.

        Raises: Timeout, XenstoreError.
        """
        await self._forget()
        await self.wait_backend(OPEN, "starting")

    async def _forget(self):
        """Remove the keys that an earlier driver wrote: the backend would take them for ours."""
        for key in await self.store.directory(self.path):
            if any(key.startswith(begin) for begin in NEGOTIATED):
                await self.store.rm(self.path + "/" + key)

    async def connect(self):
        """Say that our side is set up, and wait for the backend's.

        Raises: Refused, Timeout, XenstoreError.
        """
        await self.set_state(XenbusStateInitialised)
        states = (XenbusStateConnected, XenbusStateClosing, XenbusStateClosed)
        state = await self.wait_backend(states, "connecting")
        if state != XenbusStateConnected:
            raise Refused(
                "%s: backend %s went %s instead of Connected"
                % (self.path, self.backend, state_name(state))
            )

    async def shut(self, doing):
        """Go through Closing and Closed with the backend, or Closed alone where it is closed.

        Args:
            doing: what this is part of, for messages.

        Raises: Timeout, XenstoreError.
        """
        if await self.backend_state() not in CLOSED:
            await self.set_state(XenbusStateClosing)
            await self.wait_backend((XenbusStateClosing,) + CLOSED, doing)
        await self.set_state(XenbusStateClosed)
        await self.wait_backend(CLOSED, doing)

    async def close(self):
        """Close the device and leave it as a toolstack makes it: nothing negotiated.

        Raises: Timeout, XenstoreError.
        """
        await self.shut("closing")
        await self._forget()
        await self.set_state(XenbusStateInitialising)
