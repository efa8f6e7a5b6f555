"""All disks that a domain 0 serves: those whose nodes a toolstack makes below backend/pvdump_vbd.

Made by `pvdump blkback`. Events of xenstore go through the dispatcher of watches: each domain has
its queue, so a disk that takes long to open or a domain whose nodes change all the time holds up
its own events only. The rules: devices are made and stepped in their domain's queue; no toolstack
knows the nodes, so those of a domain that is gone are removed, and a front end's that a soft reset
took away are made again when its domain is introduced again; a process that ends leaves the nodes
of the others as they are, and the next one takes the connections up where they stood.
"""

from __future__ import annotations

import logging
import threading
import time

from xenpv.block.vdev import NUMBER_MAX
from xenpv.text import decimal

from ..service.complaints import Complaints
from ..watches.dispatcher import NOBODY, Dispatcher, Subscription
from ..watches.domains import INTRODUCED
from ..watches.domains import domid as parse_domid
from ..watches.queue import DomainIdentity, Event
from . import ports
from .attach import given, restore
from .device import HOME, TYPE, Device, Open
from .nodes import Nodes
from .sink import open_sink
from .status import Status, row

AREA = f"{HOME}/backend/{TYPE}"
HEARD = ("frontend", "params", "online")  # keys that a toolstack writes; the others are ours
LEAVING_SECONDS = 5.0

log = logging.getLogger(__name__)


class Served:
    """A device, and the watch of its front end's state."""

    def __init__(self, device: Device, watch: Subscription) -> None:
        self.device = device
        self.watch = watch
        # One step at a time, also when the domain's queue is the next generation's.
        self.lock = threading.Lock()


class Host:
    """xen: the ports; open_sink: makes the sinks."""

    def __init__(
        self, dispatcher: Dispatcher, nodes: Nodes, xen: ports.Xen, open_sink: Open = open_sink
    ) -> None:
        self._dispatcher = dispatcher
        self._nodes = nodes
        self._xen = xen
        self._open = open_sink
        self._complaints = Complaints(time.monotonic_ns, log.error)
        self._lock = threading.Lock()  # of the next
        self._served: dict[int, dict[int, Served]] = {}  # by domid and device number
        # Disks of domains that are gone, or away for the moment of a soft reset, until another
        # domain has the number.
        self._lost: dict[tuple[int, int], dict[str, str]] = {}
        # A subscription's first event comes before it is known here.
        with self._lock:
            self._area = dispatcher.subscribe(AREA, self._domid_of, self._changed, "blkback")
            dispatcher.subscribe(INTRODUCED, lambda path, token: None, self._restore, "blkback")
            dispatcher.follow(lambda domain: None, self._vanished, "blkback")

    def _domid_of(self, path: str, token: str) -> int | None:
        parts = path.removeprefix(AREA).split("/")[1:]
        if not parts:
            return None
        domid = parse_domid(parts[0])
        if domid is None or (len(parts) > 2 and parts[2:] not in [[key] for key in HEARD]):
            return NOBODY
        return domid

    def _changed(self, event: Event) -> None:
        if event.domain is None:
            with self._lock:
                area = self._area
            for name in self._nodes.directory(AREA):
                if (domid := parse_domid(name)) is not None:
                    area.look(domid)
            return
        domid = event.domain.domid
        with self._lock:
            served = self._served.setdefault(domid, {})
        for number in _numbers(self._nodes.directory(f"{AREA}/{domid}")):
            if number not in served:
                self._take_up(served, domid, number)
        for number in list(served):
            self._step(served, number)
        with self._lock:
            if not served:
                self._served.pop(domid, None)

    def _take_up(self, served: dict[int, Served], domid: int, number: int) -> None:
        front = self._nodes.read(f"{AREA}/{domid}/{number}/frontend")
        if front is None:
            return

        def look() -> None:
            self._area.look(domid)

        def complain(text: str) -> None:
            self._complaints.add((domid, number), f"disk {domid}/{number}: {text}")

        device = Device(domid, number, self._xen, self._nodes, complain, look, self._open)
        watch = self._dispatcher.subscribe(
            f"{front}/state", lambda path, token: domid, self._changed, "blkback"
        )
        served[number] = Served(device, watch)

    def _step(self, served: dict[int, Served], number: int) -> None:
        this = served.get(number)
        if this is None:
            return
        with this.lock:
            over = not this.device.step()
        if over and served.pop(number, None) is this:
            this.watch.close()
            # Its nodes may be there again.
            self._area.look(this.device.domid)

    def _restore(self, event: Event) -> None:
        """A domain was introduced, new or after a soft reset; which one is not said."""
        with self._lock:
            disks = [(domid, n) for domid, served in self._served.items() for n in list(served)]
        for domid, number in disks:
            restore(self._nodes.store, domid, number, given(self._nodes, domid, number))
        self._restore_lost()

    def _restore_lost(self) -> None:
        with self._lock:
            lost = list(self._lost.items())
        for (domid, number), values in lost:
            if restore(self._nodes.store, domid, number, values) is not None:
                with self._lock:
                    self._lost.pop((domid, number), None)

    def _vanished(self, domain: DomainIdentity) -> None:
        path = f"{AREA}/{domain.domid}"
        names = self._nodes.directory(path)
        lost = {(domain.domid, n): given(self._nodes, domain.domid, n) for n in _numbers(names)}
        with self._lock:
            self._lost.update(lost)
        if names:
            self._nodes.remove(path)
        self._area.look(domain.domid)
        # It may be there again already.
        self._restore_lost()

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
        with self._lock:
            all_served = [this for served in self._served.values() for this in served.values()]
        return Status([row(this.device) for this in all_served])


def _numbers(names: list[str]) -> list[int]:
    """Of virtual devices, from names of nodes."""
    return [number for name in names if (number := decimal(name, 0, NUMBER_MAX)) is not None]
