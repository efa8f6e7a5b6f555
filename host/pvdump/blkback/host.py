"""All disks that a domain 0 serves: those whose nodes a toolstack makes below backend/pvdump_vbd.

Made by `pvdump blkback`. Xenstore's events go through the dispatcher of watches: each domain has
its own queue, so a disk that takes long to open, or a domain whose nodes change all the time, holds
up its own events only. The rules:
- A domain's devices are made and stepped in the domain's queue, and an error of one disk is
  reported and keeps no other from its turn.
- A disk is served only for the domain that it was given to (attach.py). No toolstack knows the
  nodes, so those of a domain that is gone are removed, with its errors.
- Nodes that a soft reset took away are made again when the domain is introduced again.
- A process that ends leaves the nodes as they are, and the next one takes the connections up where
  they stood.
"""

from __future__ import annotations

import logging
import threading
import time

from xenpv.block.vdev import NUMBER_MAX
from xenpv.errors import XenError
from xenpv.text import decimal

from ..service.complaints import Complaints
from ..watches.dispatcher import NOBODY, Dispatcher, Subscription
from ..watches.domains import INTRODUCED, RELEASED
from ..watches.domains import domid as parse_domid
from ..watches.queue import Event
from . import ports
from .attach import ATTACH_ID, given, is_gone, remove_if_empty, remove_stale, restore
from .backendstore import BackendStore
from .device import Device, Open
from .paths import AREA, DOMAINS, ERRORS
from .sink import open_sink
from .status import Status, row

TOOLSTACK_KEYS = ("frontend", "params", "online")  # the other keys are ours
LEAVING_SECONDS = 5.0
LOST_MAX = 256  # disks; those lost first are forgotten
RETRY = 1_000_000_000  # ns

log = logging.getLogger(__name__)


class Served:
    """A device, the watch of its front end's state, and whose disk it is.

    owner: the domain's `vm` node when the disk was given; attached: the value of ATTACH_ID.
    """

    def __init__(
        self, device: Device, watch: Subscription, owner: str, attached: str | None
    ) -> None:
        self.device = device
        self.watch = watch
        self.owner = owner
        self.attached = attached
        # One step at a time, also when the domain's queue is the next generation's.
        self.lock = threading.Lock()


class Host:
    """Serves the disks until it is closed.

    Args:
        dispatcher: started; it is to be closed before the host.
        store: xenstore.
        xen: Xen.
        open_sink: makes the sinks.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        store: BackendStore,
        xen: ports.Xen,
        open_sink: Open = open_sink,
    ) -> None:
        self._dispatcher = dispatcher
        self._store = store
        self._xen = xen
        self._open = open_sink
        self._complaints = Complaints(time.monotonic_ns, log.error)
        self._lock = threading.Lock()  # of the next
        # By domid and device number. A domid's table stays, since two threads may use it.
        self._served: dict[int, dict[int, Served]] = {}
        # What disks of domains that are gone were given; one may be back after a soft reset.
        self._lost: dict[tuple[int, int], dict[str, str]] = {}
        self._returned: set[int] = set()  # domains whose nodes may have to be made again
        # A subscription's first event comes before it is known here.
        with self._lock:
            self._area = dispatcher.subscribe(AREA, self._domid_of, self._changed, "blkback")
            for path in (INTRODUCED, RELEASED):
                dispatcher.subscribe(path, lambda _, token: None, self._domains_changed, "blkback")
            dispatcher.follow(
                lambda domain: None, lambda domain: self._look(domain.domid), "blkback"
            )

    def _domid_of(self, path: str, token: str) -> int | None:
        parts = path[len(AREA) :].split("/")[1:]
        if not parts:
            return None
        domid = parse_domid(parts[0])
        if domid is None or (len(parts) > 2 and parts[2:] not in [[key] for key in TOOLSTACK_KEYS]):
            return NOBODY
        return domid

    def _look(self, domid: int) -> None:
        """Have a domain's disks looked at in its queue. Any thread may call it."""
        with self._lock:
            area = self._area
        area.look(domid)

    def _domids(self, path: str) -> set[int]:
        """Return the domids among the names of a node's children."""
        found = (parse_domid(name) for name in self._store.directory(path))
        return {domid for domid in found if domid is not None}

    def _changed(self, event: Event) -> None:
        """Look at a domain, or at all, after nodes have changed."""
        if event.domain is None:
            for domid in self._domids(AREA):
                self._look(domid)
        else:
            self._attend(event.domain.domid)

    def _domains_changed(self, event: Event) -> None:
        """Look at all domains: one was introduced, perhaps after a soft reset, or is gone.

        Three listings find the domains that are gone, also those that the dispatcher never saw.
        """
        with_disks, with_errors = self._domids(AREA), self._domids(ERRORS)
        there = self._domids(DOMAINS)
        with self._lock:
            lost = {domid for domid, _ in self._lost}
            devices = [this.device for served in self._served.values() for this in served.values()]
        away = {
            device.domid
            for device in devices
            if self._store.read(f"{device.front}/backend") != device.path
        }
        returned = lost & there | away
        with self._lock:
            self._returned |= returned
        for domid in with_errors - there:
            self._store.remove(f"{ERRORS}/{domid}")
        for domid in with_disks - there | returned:
            self._look(domid)

    # One domain's disks, in its queue.

    def _attend(self, domid: int) -> None:
        """Serve a domain's disks as its nodes are now.

        It may run in the queues of two domains that have the number one after the other.
        """
        with self._lock:
            served = self._served.setdefault(domid, {})
            may_restore = domid in self._returned
            self._returned.discard(domid)
        names = self._store.directory(f"{AREA}/{domid}")
        vm = self._store.read(f"{DOMAINS}/{domid}/vm")
        exists = vm is not None or self._store.read(f"{DOMAINS}/{domid}") is not None
        for number in sorted({*_numbers(names), *served}):
            try:
                if number not in served:
                    self._take_up(served, domid, number)
                self._end_if_not_its_own(served.get(number), vm, exists)
                self._step(served, number)
            except Exception as error:
                self._complain(domid, number, f"{type(error).__name__}: {error}")
                log.debug("disk %d/%d", domid, number, exc_info=error)
        if may_restore:
            self._restore(domid, served)
        if not exists and not names:
            remove_if_empty(self._store.store, f"{AREA}/{domid}")

    def _take_up(self, served: dict[int, Served], domid: int, number: int) -> None:
        path = f"{AREA}/{domid}/{number}"
        front = self._store.read(f"{path}/frontend")
        if front is None:
            return
        device = Device(
            domid,
            number,
            self._xen,
            self._store,
            lambda text: self._complain(domid, number, text),
            lambda: self._look(domid),
            self._open,
        )
        owner, attached = (self._store.read(f"{path}/{key}") for key in ("vm", ATTACH_ID))
        watch = self._dispatcher.subscribe(
            f"{front}/state", lambda path, token: domid, self._changed, "blkback"
        )
        this = Served(device, watch, owner or "", attached)
        with self._lock:
            is_first = served.setdefault(number, this) is this
        if not is_first:
            watch.close()

    def _complain(self, domid: int, number: int, text: str) -> None:
        self._complaints.add((domid, number), f"disk {domid}/{number}: {text}")

    def _end_if_not_its_own(self, this: Served | None, vm: str | None, exists: bool) -> None:
        """End a device whose domain is gone, or whose nodes were given anew meanwhile."""
        if this is None:
            return
        domid, number = this.device.domid, this.device.number
        if is_gone(this.owner, vm, exists):
            values = remove_stale(self._store.store, domid, number)
            if values is not None:
                self._keep(domid, number, values)
        if self._store.read(f"{this.device.path}/{ATTACH_ID}") != this.attached:
            with this.lock:
                this.device.end()

    def _keep(self, domid: int, number: int, values: dict[str, str]) -> None:
        """Remember a lost disk, for a while."""
        with self._lock:
            self._lost.pop((domid, number), None)
            self._lost[domid, number] = values
            if len(self._lost) > LOST_MAX:
                del self._lost[next(iter(self._lost))]
            self._returned.add(domid)
        # It may be there again already.
        self._look(domid)

    def _step(self, served: dict[int, Served], number: int) -> None:
        this = served.get(number)
        if this is None:
            return
        with this.lock:
            over = not this.device.step()
        with self._lock:
            over = over and served.get(number) is this
            if over:
                del served[number]
        if over:
            this.watch.close()
            # Its nodes may be there again.
            self._look(this.device.domid)

    def _restore(self, domid: int, served: dict[int, Served]) -> None:
        """Make the nodes again that a soft reset took away from a domain."""
        with self._lock:
            disks = {n: values for (d, n), values in self._lost.items() if d == domid}
        for number in list(served):
            disks.setdefault(number, given(self._store, domid, number))
        for number, values in disks.items():
            try:
                done = restore(self._store.store, domid, number, values)
            except XenError as error:
                # A guest that keeps writing to these nodes delays its own disk only.
                self._complain(domid, number, f"its nodes after a soft reset: {error}")
                with self._lock:
                    self._returned.add(domid)
                self._xen.later(RETRY, lambda: self._look(domid))
            else:
                if done is not None:
                    with self._lock:
                        self._lost.pop((domid, number), None)

    # The whole.

    def close(self) -> None:
        """End all connections and close the sinks; nodes stay. The dispatcher is closed before."""
        with self._lock:
            all_served = [this for served in self._served.values() for this in served.values()]
        until = time.monotonic() + LEAVING_SECONDS
        for this in all_served:
            this.device.close()
        for this in all_served:
            # A worker whose disk hangs is left behind: its process ends.
            while not this.device.close() and time.monotonic() < until:
                time.sleep(0.01)

    def status(self) -> Status:
        """Return how each disk stands."""
        with self._lock:
            all_served = [this for served in self._served.values() for this in served.values()]
        return Status([row(this.device) for this in all_served])


def _numbers(names: list[str]) -> list[int]:
    """Return the numbers of virtual devices among names of nodes."""
    return [number for name in names if (number := decimal(name, 0, NUMBER_MAX)) is not None]
