"""Xenbus: the states through which a front end and its backend find each other.

Used by device front ends. Either side may skip states, so a wait names a set of states; it is
bounded, and its error says which device, what was waited for and what was seen. A device that an
earlier kernel left in any state but Initialising is taken over: Closing, Closed, Initialising.
Source: xen/include/public/io/xenbus.h; Linux drivers/xen/xenbus/xenbus_probe_frontend.c (the order
of a takeover).
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
# How the keys begin that a front end writes for its backend.
NEGOTIATED = (
    "ring-ref",
    "ring-page-order",
    "num-ring-pages",
    "queue-",
    "multi-queue-num-queues",
    "feature-",
    "event-channel",
    "protocol",
)
# States of a backend that had a front end before: it must see that one close.
LEFT = (XenbusStateConnected, XenbusStateClosing, XenbusStateClosed)
# Where a backend can be set up with. Without InitWait it has nothing to offer.
OPEN = (XenbusStateInitWait, XenbusStateInitialised)
DOMID_FIRST_RESERVED = 0x7FF0
STEP_TIMEOUT = 5 * SECOND
# A backend that an earlier kernel left may have to wait for that kernel's I/O.
EARLIER_TIMEOUT = 60 * SECOND
ASK_AGAIN = SECOND // 2
# Between two looks at the backend's state: first and last.
POLL_PERIOD = SECOND // 100
POLL_PERIOD_MAX = SECOND // 8


def state_name(state):
    return STATE_NAMES[state] if state < len(STATE_NAMES) else "state %d" % state


class Device:
    """One device of ours and its backend.

    store: Xenstore; loop: Loop; path: the front end's node, such as "device/vbd/51712".
    """

    def __init__(self, store, loop, path):
        self.store = store
        self.loop = loop
        self.path = path
        self.backend = ""
        self.backend_id = 0
        # How long the backend may take for a step, ns; and whether an earlier kernel was its front.
        self._patience = STEP_TIMEOUT
        self._taken_over = False

    async def find(self):
        """Read who the backend is."""
        self.backend = await self.store.read_text(self.path + "/backend")
        self.backend_id = await self.store.read_int(self.path + "/backend-id")
        if self.backend_id >= DOMID_FIRST_RESERVED:
            raise BackendError("%s: backend-id %d is no domain" % (self.path, self.backend_id))

    async def set_state(self, state):
        await self.store.write(self.path + "/state", str(state))

    async def write(self, key, value):
        await self.store.write(self.path + "/" + key, str(value))

    async def state(self):
        return await self._state(self.path)

    async def backend_state(self):
        """The backend's state; Unknown also where there is none that we may see."""
        try:
            return await self._state(self.backend)
        except XenstoreError as e:
            # So servers answer for a node that is gone where we may not read the one above it.
            if e.code != "EACCES":
                raise
            return XenbusStateUnknown

    async def _state(self, path):
        """Unknown for a node that is not there or holds no state: the other side may write one."""
        text = await self.store.read_text(path + "/state", "")
        return decimal(text, 0, 9) or XenbusStateUnknown

    async def backend_text(self, key):
        """What the backend says of a key, "" for nothing."""
        return await self.store.read_text(self.backend + "/" + key, "")

    async def wait_backend(self, states, doing):
        """Wait until the backend is in one of the states. Returns that state.

        doing: what this wait is part of, for messages. Raises Timeout.
        """
        deadline = self.loop.now() + self._patience
        period = POLL_PERIOD
        while True:
            state = await self.backend_state()
            if state in states:
                return state
            if self.loop.now() >= deadline:
                raise Timeout(
                    "%s, %s: backend %s is %s after %d s, %s expected"
                    % (
                        self.path,
                        doing,
                        self.backend,
                        state_name(state),
                        self._patience // SECOND,
                        " or ".join(state_name(s) for s in states),
                    )
                )
            await self.loop.sleep(period)
            period = min(2 * period, POLL_PERIOD_MAX)

    async def begin(self):
        """Bring the device to where it can be set up: ours Initialising, the backend InitWait."""
        ours, backends = await self.state(), await self.backend_state()
        if ours != XenbusStateInitialising or backends in LEFT:
            await self._take_over()
        await self._forget()
        await self.wait_backend(OPEN, "starting")

    async def _forget(self):
        """Remove what an earlier driver negotiated: the backend would read it as ours."""
        for key in await self.store.directory(self.path):
            if any(key.startswith(begin) for begin in NEGOTIATED):
                await self.store.rm(self.path + "/" + key)

    async def _take_over(self):
        """Close the connection that an earlier kernel left, as its own driver would have."""
        self._taken_over = True
        self._patience = EARLIER_TIMEOUT
        if await self.backend_state() != XenbusStateInitWait:
            await self._shut("taking over from the earlier kernel")
        await self.set_state(XenbusStateInitialising)

    async def _shut(self, doing):
        """Closing, then Closed, each with the backend's answer, unless it is there no more."""
        closed = (XenbusStateClosed, XenbusStateUnknown)
        if await self.backend_state() not in closed:
            await self.set_state(XenbusStateClosing)
            await self.wait_backend((XenbusStateClosing,) + closed, doing)
        await self.set_state(XenbusStateClosed)
        await self.wait_backend(closed, doing)

    async def connect(self):
        """Our side is set up: say so and wait for the backend. Raises BackendError, Timeout.

        Linux's blkback closes while I/O of the earlier connection is under way, and then refuses
        the new one ("pending I/O") instead of waiting, so it is asked again.
        """
        deadline = self.loop.now() + EARLIER_TIMEOUT
        gone = (XenbusStateClosing, XenbusStateClosed)
        while True:
            await self.set_state(XenbusStateInitialised)
            state = await self.wait_backend((XenbusStateConnected,) + gone, "connecting")
            if state not in gone:
                return
            if not self._taken_over or self.loop.now() >= deadline:
                raise BackendError(
                    "%s: backend %s went %s instead of Connected"
                    % (self.path, self.backend, state_name(state))
                )
            await self.loop.sleep(ASK_AGAIN)
            await self._take_over()
            await self.wait_backend(OPEN, "starting")

    async def close(self):
        """Close the device and leave it as a toolstack makes it: nothing negotiated."""
        self._patience = STEP_TIMEOUT
        await self._shut("closing")
        await self._forget()
        await self.set_state(XenbusStateInitialising)
