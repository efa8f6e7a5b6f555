"""One disk of one guest: it follows the front end's state, and makes and ends its connections.

Made by a host (host.py, embedded.py), which calls step() when a node of either end changed, and by
look() when a connection has ended. The rules: step() never waits, it does what can be done now;
either side may skip states, so a front end that is Initialising again, or Initialised with another
ring, begins anew whatever it was before, but a connection begins at least REST after the one before
began, so one that breaks its ring or goes round the states in a loop costs little; the sink stays
open from the first step to the last.
Whatever goes wrong is written where xenbus drivers write it, error/<node>/error, and the state is
Closing until the front end has gone through Closed or comes with another ring.
Source: xen/include/public/io/xenbus.h, blkif.h; Linux drivers/xen/xenbus/xenbus_client.c
(xenbus_dev_fatal), drivers/block/xen-blkback/xenbus.c.
"""

from __future__ import annotations

import contextlib
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
from .connection import Connection
from .counts import Counts
from .frames import Pool
from .instance import Instance
from .negotiate import Disk, Front, Unusable
from .ports import Refused, Stalled
from .request import Geometry
from .ringmemory import RingMemory
from .sink import Sink, open_sink

HOME = "/local/domain/0"
TYPE = "pvdump_vbd"  # below backend/: a type of our own, which no kernel or QEMU serves
Open = Callable[[str, bool], Sink]


def backend_path(domid: int, number: int) -> str:
    return f"{HOME}/backend/{TYPE}/{domid}/{number}"


class Device:
    """domid, number: the guest and its virtual device; nodes: xenstore.

    complain: takes a line; look: asks for another step, from any thread; open_sink: makes the sink.
    """

    def __init__(
        self,
        domid: int,
        number: int,
        xen: ports.Xen,
        nodes: ports.Nodes,
        complain: Callable[[str], None],
        look: Callable[[], None],
        open_sink: Open = open_sink,
    ) -> None:
        self.domid = domid
        self.path = backend_path(domid, number)
        self.name = f"{domid}/{number}"
        self.front = nodes.read(f"{self.path}/frontend") or ""
        self.state = XenbusStateUnknown
        self.instance: Instance | None = None
        self.counts = Counts()
        self.fatal = ""  # what went wrong last
        self._error = f"{HOME}/error{self.path.removeprefix(HOME)}/error"
        self._xen = xen
        self._nodes = nodes
        self._complain = complain
        self._look = look
        self._open = open_sink
        self._disk: Disk | None = None
        self._params = ""  # those that the sink was opened with, or failed
        self._keys: dict[str, str] = {}  # those that were connected, or failed
        self._resting = False
        self._over = False

    def step(self) -> bool:
        """Do what the two ends' nodes ask for. Returns False when the device is over."""
        if self.instance is not None and self.instance.gone:
            fault, self.instance = self.instance.fault, None
            if fault:
                self._fail(fault)
        if self._over or self._nodes.read(f"{self.path}/frontend") is None:
            # Nodes that are made meanwhile are another device's.
            self._over = True
            return not self.close()
        if self._ready():
            ACTIONS.get(self._front_state(), Device._do_nothing)(self)
        return True

    def close(self) -> bool:
        """Let go of everything, the sink last. Returns whether that is done."""
        if not self._let_go():
            return False
        if self._disk is not None:
            self._disk.sink.close()
            self._disk = None
        return True

    def _front_state(self) -> int:
        text = self._nodes.read(f"{self.front}/state") or ""
        return decimal(text, 0, 9) or XenbusStateUnknown

    # The sink.

    def _ready(self) -> bool:
        """Have the sink open. A toolstack that names another one after a failure is heard."""
        if self._disk is not None:
            return True
        params = self._nodes.read(f"{self.path}/params") or ""
        if params == self._params:
            return False
        self._params = params
        readonly = (self._nodes.read(f"{self.path}/mode") or "w") != "w"
        try:
            sink = self._open(params, readonly)
        except (OSError, Stalled) as error:
            self._fail(f"opening {params}: {error}")
            return False
        removable = self._nodes.read(f"{self.path}/removable") == "1"
        self._disk = Disk(sink, readonly, removable)
        return True

    # States.

    def _do_nothing(self) -> None:
        pass

    def _begin(self) -> None:
        """The front end wants to begin, whatever it was before."""
        if not self._let_go():
            return
        self._keys = {}
        if self._nodes.read(f"{self.path}/online") == "0":
            self._set_state(XenbusStateClosed)
            return
        offers = {key: str(value) for key, value in negotiate.OFFERS.items()}
        self._set_state(XenbusStateInitWait, offers)

    def _connect(self) -> None:
        """The front end has made its ring; the same keys as before say nothing new."""
        keys = negotiate.read_keys(self._nodes, self.front)
        if keys == self._keys:
            # Not where we are: a toolstack may have written Closing there, for the front end. Where
            # it has made the nodes anew, they have lost what we wrote.
            anew = self._nodes.read(f"{self.path}/state") == str(XenbusStateInitialising)
            if self.instance is not None and (anew or self.state != XenbusStateConnected):
                assert self._disk is not None
                self._set_state(XenbusStateConnected, negotiate.properties(self._disk))
            return
        if not self._let_go() or self._resting:
            return
        self._keys = keys
        self._resting = True
        self._xen.later(self._rested)
        try:
            instance, channel = self._make(negotiate.parse(keys))
        except Unusable as error:
            self._fail(f"{self.front}: {error}")
            return
        except Refused as error:
            self._fail(f"connecting to {self.front}: {error}")
            return
        except Stalled as error:
            self._complain(f"connecting to {self.front}: {error}; it is tried again")
            self._keys = {}
            return
        self.instance = instance
        self._xen.run(instance, channel)
        self._nodes.remove(self._error)
        assert self._disk is not None
        self._set_state(XenbusStateConnected, negotiate.properties(self._disk))

    def _rested(self) -> None:
        self._resting = False
        self._look()

    def _make(self, front: Front) -> tuple[Instance, ports.Channel]:
        """Take all that a connection needs, or nothing. Raises Refused, Stalled."""
        assert self._disk is not None
        sink, layout, pages = self._disk.sink, front.layout, len(front.refs)
        with contextlib.ExitStack() as undo:
            grants = self._xen.grants(self.domid)
            undo.callback(grants.close)
            frames = grants.map(front.refs, True)
            undo.callback(frames.unmap)
            memory = RingMemory(frames, pages)
            undo.callback(memory.close)
            ring = self._make_ring(memory, front)
            channel = self._xen.bind(self.domid, front.port)
            undo.callback(channel.close)
            queue = None if sink.direct is None else self._xen.queue(sink.direct, channel)
            undo.pop_all()
        pool = Pool(grants, front.persistent, queue.vector if queue else None)
        connection = Connection(layout, grants, frames, memory, ring, channel, queue, pool)
        geometry = Geometry(
            sink.size // SECTOR, max(sink.sector_size // SECTOR, 1), self._disk.readonly
        )
        instance = Instance(
            self.name, connection, sink, geometry, self.counts, self._complain, self._look
        )
        return instance, channel

    def _make_ring(self, memory: RingMemory, front: Front) -> BackRing:
        return BackRing(memory, len(front.refs), front.layout.stride, self.path)

    def _closing(self) -> None:
        """The front end is about to close; what it asked for is still answered."""
        is_closed = self.state == XenbusStateClosed
        self._set_state(XenbusStateClosed if is_closed else XenbusStateClosing)

    def _closed(self) -> None:
        """The front end has closed, or its node is gone."""
        if self.instance is not None and not self.instance.gone:
            # It calls look() when it has ended.
            self.instance.finish()
        if self.instance is None or (self.instance.gone and self._let_go()):
            self._keys = {}
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
        """Write keys of ours and the state, at once; nothing where the toolstack removed us.

        A state that somebody else wrote is put right, or the front end waits for ever.
        """
        text = str(state)
        if state == self.state and self._nodes.read(f"{self.path}/state") == text:
            return
        if self._nodes.update(self.path, {**(keys or {}), "state": text}):
            self.state = state

    def _fail(self, why: str) -> None:
        self.fatal = why
        self._complain(why)
        self._nodes.write(self._error, why)
        self._set_state(XenbusStateClosing)


ACTIONS: dict[int, Callable[[Device], None]] = {
    XenbusStateUnknown: Device._closed,
    XenbusStateInitialising: Device._begin,
    XenbusStateInitialised: Device._connect,
    XenbusStateConnected: Device._connect,
    XenbusStateClosing: Device._closing,
    XenbusStateClosed: Device._closed,
}
