"""One disk of one guest: it follows the front end's states, and makes and ends its connections.

A host (host.py, pvxen/blkback.py) makes it, and calls step() when a node of either end changed or
the device asked for it by look(). The rules:
- step() does what can be done now and never waits, except to open the sink.
- Either side may skip states, so a front end that is Initialising again, or Initialised with
  another ring, begins anew whatever it was before.
- A connection begins at least REST after the one before began, so that a guest that breaks its
  ring, or goes through the states in a loop, costs little.
- The sink stays open from the first step to the last.
- What is short (memory, a descriptor, a thread, the sink's server) is tried again after a rest. A
  failure that would remain is written where xenbus drivers write it, error/<node>/error, and the
  state is Closing until the front end has gone through Closed or comes with another ring.
Source: xen/include/public/io/xenbus.h, blkif.h; Linux drivers/xen/xenbus/xenbus_client.c
(xenbus_dev_fatal), drivers/block/xen-blkback/xenbus.c.
"""

from __future__ import annotations

from collections.abc import Callable

from xenpv.abi import (
    XenbusStateClosed,
    XenbusStateClosing,
    XenbusStateConnected,
    XenbusStateInitialised,
    XenbusStateInitialising,
    XenbusStateInitWait,
    XenbusStateUnknown,
)
from xenpv.block.blkif import SECTOR
from xenpv.block.ring import BackRing
from xenpv.text import decimal

from . import negotiate, ports
from .counts import Counts
from .instance import Instance
from .negotiate import DiskProperties, Front, Unusable
from .paths import backend_path, error_path
from .ports import Refused, Stalled
from .request import Geometry
from .resources import take
from .ringmemory import RingMemory
from .sink import Sink, open_sink
from .transfer import Queue

REST = 100_000_000  # ns between the beginnings of two connections
OPEN_REST = 1_000_000_000  # ns between two attempts to open the sink
QUEUE_TRIES = 10  # connections without a queue of I/O are not tried sooner
Open = Callable[[str, bool, bool], Sink]


class Device:
    """A disk as the backend serves it.

    Args:
        domid, number: the guest and its virtual device.
        xen, store: how it uses Xen and xenstore.
        complain: takes a line for the log.
        look: asks for another step; any thread calls it.
        open_sink: makes the sink, as sink.open_sink() does.
    """

    def __init__(
        self,
        domid: int,
        number: int,
        xen: ports.Xen,
        store: ports.BackendStore,
        complain: Callable[[str], None],
        look: Callable[[], None],
        open_sink: Open = open_sink,
    ) -> None:
        self.domid = domid
        self.number = number
        self.path = backend_path(domid, number)
        self.name = f"{domid}/{number}"
        self.front = store.read(f"{self.path}/frontend") or ""
        self.state = XenbusStateUnknown
        self.instance: Instance | None = None
        self.counts = Counts()
        self.fatal = ""  # what went wrong last
        self._error = f"{error_path(domid, number)}/error"
        self._xen = xen
        self._store = store
        self._complain = complain
        self._look = look
        self._open = open_sink
        self._disk: DiskProperties | None = None
        self._params = ""  # of the sink that was opened or failed to open
        self._opening_rests = False
        self._awaited = ""  # what was said to be tried again
        self._keys: dict[str, str] = {}  # of the connection that was made or failed
        self._sector = SECTOR  # bytes, as the connected front end counts them
        self._queue_tries = 0
        self._resting = False
        self._over = False

    def step(self) -> bool:
        """Do what the two ends' nodes ask for. Returns False when the device is over."""
        if self.instance is not None and self.instance.gone:
            fault, self.instance = self.instance.fault, None
            if fault:
                self._fail(fault)
        if self._over or self._store.read(f"{self.path}/frontend") is None:
            return not self.end()
        if self._disk is None and self._is_offline():
            self._closed()
        elif self._ready():
            ACTIONS.get(self._front_state(), Device._do_nothing)(self)
        return True

    def end(self) -> bool:
        """Close for good: nodes of the same path belong to another device from now on.

        Returns: whether everything was let go; if not, look() will be called.
        """
        self._over = True
        return self.close()

    def close(self) -> bool:
        """Let go of everything, the sink last. Returns whether that is done."""
        if not self._let_go():
            return False
        self._close_sink()
        return True

    def _is_offline(self) -> bool:
        """Return whether the toolstack wants to take the disk away."""
        return self._store.read(f"{self.path}/online") == "0"

    def _front_state(self) -> int:
        """Return the front end's state; one whose disk is another backend's has none for us."""
        if self._store.read(f"{self.front}/backend") != self.path:
            return XenbusStateUnknown
        text = self._store.read(f"{self.front}/state") or ""
        return decimal(text, 0, 9) or XenbusStateUnknown

    # The sink.

    def _ready(self) -> bool:
        """Have the sink open. One that failed is tried again when the toolstack changes params."""
        if self._disk is not None:
            return True
        params = self._store.read(f"{self.path}/params") or ""
        if params == self._params or self._opening_rests:
            return False
        readonly = (self._store.read(f"{self.path}/mode") or "w") != "w"
        shared = self._store.read(f"{self.path}/shared") == "1"
        try:
            sink = self._open(params, readonly, shared)
        except Stalled as error:
            self._opening_rests = True
            self._xen.later(OPEN_REST, self._opening_rested)
            self._await(f"opening {params}: {error}; it is tried again")
            return False
        except OSError as error:
            self._params = params
            self._fail(f"opening {params}: {error.strerror or error}")
            return False
        self._params = params
        removable = self._store.read(f"{self.path}/removable") == "1"
        self._disk = DiskProperties(sink, readonly, removable)
        return True

    def _close_sink(self) -> None:
        if self._disk is not None:
            self._disk.sink.close()
            self._disk = None
            self._params = ""

    def _await(self, why: str) -> None:
        """Say once why something is tried again."""
        if why != self._awaited:
            self.fatal = self._awaited = why
            self._complain(why)

    def _opening_rested(self) -> None:
        self._opening_rests = False
        self._look()

    # States.

    def _do_nothing(self) -> None:
        pass

    def _begin(self) -> None:
        """Offer the front end a connection; it asks for one, whatever it was before."""
        if not self._let_go():
            return
        self._keys = {}
        if self._is_offline():
            self._closed()
            return
        offers = {key: str(value) for key, value in negotiate.OFFERS.items()}
        self._set_state(XenbusStateInitWait, offers)

    def _connect(self) -> None:
        """Connect the ring that the front end has made; the same keys as before say nothing new."""
        keys = negotiate.read_keys(self._store, self.front)
        if keys == self._keys:
            # A toolstack may have written Closing for the front end, which stays. Where it has
            # made our nodes anew, what we wrote there is lost.
            anew = self._store.read(f"{self.path}/state") == str(XenbusStateInitialising)
            if self.instance is not None and (anew or self.state != XenbusStateConnected):
                self._set_connected()
            return
        # They are known again only when they are connected or have failed.
        self._keys = {}
        if not self._let_go() or self._resting:
            return
        self._resting = True
        self._xen.later(REST, self._rested)
        try:
            front = negotiate.parse(keys)
            instance, channel = self._make(front)
            self._run(instance, channel)
        except Unusable as error:
            self._keys = keys
            self._fail(f"{self.front}: {error}")
            return
        except (Refused, OSError) as error:
            self._keys = keys
            self._fail(f"connecting to {self.front}: {error}")
            return
        except (Stalled, MemoryError) as error:
            why = str(error) or "no memory"
            self._await(f"connecting to {self.front}: {why}; it is tried again")
            return
        if front.reduced:
            self._complain(f"{self.front}: {', '.join(front.reduced)}")
        self._keys = keys
        self._queue_tries = 0
        self._awaited = ""
        self._store.remove(self._error)
        self._set_connected()

    def _run(self, instance: Instance, channel: ports.Channel) -> None:
        """Have the worker run, or hold nothing. Raises Stalled."""
        self.instance = instance
        try:
            self._xen.run(instance, channel)
        except BaseException:
            self.instance = None
            instance.abandon()
            raise

    def _set_connected(self) -> None:
        assert self._disk is not None
        self._set_state(XenbusStateConnected, negotiate.properties(self._disk, self._sector))

    def _rested(self) -> None:
        self._resting = False
        self._look()

    def _make(self, front: Front) -> tuple[Instance, ports.Channel]:
        """Take all that a connection needs, or nothing. Raises Refused, Stalled."""
        assert self._disk is not None
        sink = self._disk.sink
        sink.measure()
        resources = take(
            self._xen,
            self.domid,
            front,
            self._make_ring,
            lambda channel: self._make_queue(sink, channel),
        )
        self._sector = front.sector(sink)
        geometry = Geometry(
            sink.size // SECTOR,
            max(sink.sector_size // SECTOR, 1),
            self._disk.readonly,
            self._sector // SECTOR,
            front.maxima["max-request-segments"],
            front.maxima["max-request-size"] // SECTOR,
        )
        instance = Instance(
            self.name,
            resources,
            sink,
            geometry,
            front.maxima["max-requests"],
            self.counts,
            self._complain,
            self._look,
        )
        return instance, resources.channel

    def _make_queue(self, sink: Sink, channel: ports.Channel) -> Queue | None:
        """Make a queue for I/O beside each other; one that stays refused is done without."""
        if sink.direct is None:
            return None
        try:
            return self._xen.queue(sink.direct, channel)
        except Stalled as error:
            self._queue_tries += 1
            if self._queue_tries < QUEUE_TRIES:
                raise
            self._complain(f"{error}; its I/O is done one after the other")
            return None

    def _make_ring(self, memory: RingMemory, front: Front) -> BackRing:
        return BackRing(memory, len(front.refs), front.layout, self.path)

    def _closing(self) -> None:
        """Follow a front end that is about to close; what it asked for is still answered."""
        is_closed = self.state == XenbusStateClosed
        self._set_state(XenbusStateClosed if is_closed else XenbusStateClosing)

    def _closed(self) -> None:
        """Close, because the front end has closed or its node is gone."""
        if self.instance is not None and not self.instance.gone:
            # It calls look() when it has ended.
            self.instance.finish()
        if self.instance is None or (self.instance.gone and self._let_go()):
            self._keys = {}
            if self._is_offline():
                # Before it says Closed, so that the toolstack finds the file free.
                self._close_sink()
            self._set_state(XenbusStateClosed)

    def _let_go(self) -> bool:
        """End the connection. Returns whether it has ended; if not, look() will be called."""
        if self.instance is None:
            return True
        self.instance.disconnect()
        if self.instance.gone:
            self.instance = None
        return self.instance is None

    def _set_state(self, state: int, keys: dict[str, str] | None = None) -> None:
        """Write our keys and the state at once, unless the toolstack has removed our nodes.

        A state that somebody else wrote is corrected, or the front end would wait for ever.
        """
        text = str(state)
        if state == self.state and self._store.read(f"{self.path}/state") == text:
            return
        values = {f"{self.path}/{key}": value for key, value in (keys or {}).items()}
        if self._store.update(self.path, {**values, f"{self.path}/state": text}):
            self.state = state

    def _fail(self, why: str) -> None:
        """Say what went wrong, also in xenstore unless our nodes are removed."""
        self.fatal = why
        self._complain(why)
        self._store.update(self.path, {self._error: why})
        self._set_state(XenbusStateClosing)


ACTIONS: dict[int, Callable[[Device], None]] = {
    XenbusStateUnknown: Device._closed,
    XenbusStateInitialising: Device._begin,
    XenbusStateInitialised: Device._connect,
    XenbusStateConnected: Device._connect,
    XenbusStateClosing: Device._closing,
    XenbusStateClosed: Device._closed,
}
