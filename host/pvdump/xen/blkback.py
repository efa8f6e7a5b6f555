"""A block backend on the embedded machine: xenbus states as Linux's blkback goes through them.

Made by guest.Guest.disk(). It acts on two occasions, each a step of the other side: the front end's
state changed, or its event channel was rung. What it does wrong, it does on request (faults.py).
The rules of a takeover: Initialising is answered with InitWait only from Closed; Initialised and
Connected are ignored while connected already; Closing is answered with Closing, Closed with Closed
after the ring was let go; with I/O of that ring still under way, the next one is refused.
Source: Xen public/io/blkif.h, public/io/xenbus.h; Linux drivers/block/xen-blkback/xenbus.c.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from xenpv import abi

from ..xenstored.domain import StoreError
from ..xenstored.server import Xenstored
from .blkring import BackRing, Request, RingHalted
from .evtchn import XenRefuses
from .faults import Faults
from .gnttab import GrantRefused, Mapping
from .machine import DOM0, Machine
from .sink import SECTOR, Sink

if TYPE_CHECKING:
    from collections.abc import Iterator

# States of ours from which Initialising means a new start.
FRESH = (abi.XenbusStateUnknown, abi.XenbusStateInitialising, abi.XenbusStateClosed)


class BlkBack:
    """path, front: xenstore nodes of the two ends; sink: what the disk is made of."""

    def __init__(
        self, machine: Machine, store: Xenstored, path: str, front: str, sink: Sink, faults: Faults
    ) -> None:
        self.machine = machine
        self.store = store
        self.path = path
        self.front = front
        self.sink = sink
        self.faults = faults
        self.ring: BackRing | None = None
        self.fatal: str | None = None
        self.seen: list[Request] = []  # every request, in the order of the ring
        self.states: list[int] = []  # every state of ours, in order
        self.written = 0  # bytes
        self.held: list[tuple[Request, list[Mapping]]] = []  # requests never to be answered
        self.closed = False
        self._port = 0
        self._busy_until = 0  # ns
        self._ready: list[tuple[int, Request, int]] = []  # number, request, status
        store.watch(f"{front}/state", self._front_changed)
        self._set_state(abi.XenbusStateInitWait)

    def _front_changed(self) -> None:
        self.machine.clock.soon(self.step)

    @property
    def state(self) -> int:
        return int(self.store.read(f"{self.path}/state"))

    def _set_state(self, state: int) -> None:
        if not self.states or self.states[-1] != state:
            self.states.append(state)
            self.store.write(f"{self.path}/state", state)

    def _front_int(self, key: str) -> int:
        """A number that the front end wrote. Raises StoreError, ValueError."""
        return int(self.store.read(f"{self.front}/{key}"))

    # The device.

    def step(self) -> None:
        """Look at the front end's state and follow it."""
        if self.closed:
            return
        try:
            state = self._front_int("state")
        except (StoreError, ValueError):
            state = abi.XenbusStateUnknown
        if state == abi.XenbusStateInitialising:
            if self.state in FRESH and not self.faults.no_init_wait:
                self._set_state(abi.XenbusStateInitWait)
        elif state in (abi.XenbusStateInitialised, abi.XenbusStateConnected):
            if self.state != abi.XenbusStateConnected and not self.faults.never_connects:
                self._connect()
        elif state == abi.XenbusStateClosing:
            if not self.faults.ignores_closing:
                self._set_state(abi.XenbusStateClosing)
        elif state == abi.XenbusStateClosed:
            if not (self.faults.stuck_closing or self.faults.ignores_closing):
                self._disconnect()
                self._set_state(abi.XenbusStateClosed)
        else:
            self._disconnect()

    def _connect(self) -> None:
        if self.machine.clock.now < self._busy_until:
            self.fail("pending I/O")
            return
        self._disconnect()
        try:
            self._map_ring()
        except (StoreError, ValueError, GrantRefused, XenRefuses) as error:
            self.fail(f"reading the front end's ring: {type(error).__name__} {error}")
            return
        if not self.faults.no_flush:
            self.store.write(f"{self.path}/feature-flush-cache", 1)
        self.store.write(f"{self.path}/sectors", self.sink.size // SECTOR)
        info = abi.VDISK_READONLY if self.faults.read_only else 0
        self.store.write(f"{self.path}/info", info)
        self.store.write(f"{self.path}/sector-size", self.faults.sector_size)
        self._set_state(abi.XenbusStateConnected)
        self.machine.clock.soon(self.work)

    def _map_ring(self) -> None:
        protocol = self.store.read(f"{self.front}/protocol", "x86_64-abi")
        if protocol != "x86_64-abi":
            raise ValueError(f"protocol {protocol}")
        # Whoever writes an order, even 0, is taken to number its references.
        order = self.store.exists(f"{self.front}/ring-page-order")
        ref = self._front_int("ring-ref0" if order else "ring-ref")
        port = self._front_int("event-channel")
        page = self.machine.gnttab.map(ref, DOM0, readonly=False)
        try:
            self._port = self.machine.evtchn.bind_interdomain(DOM0, self.machine.domid, port)
        except XenRefuses:
            page.unmap()
            raise
        self.machine.evtchn.on(DOM0, self._port, self.work)
        self.ring = BackRing(page)

    def _disconnect(self) -> None:
        if self.ring is None:
            return
        for _, mappings in self.held:
            for mapping in mappings:
                mapping.unmap()
        self.held.clear()
        self._ready.clear()
        self.ring.page.unmap()
        self.ring = None
        self._busy_until = self.machine.clock.now + self.faults.lingers
        # A front end may have closed its end, never ours.
        self.machine.evtchn.close(DOM0, self._port)

    def fail(self, why: str) -> None:
        """As xenbus_dev_fatal: the reason under domain 0's error/, and Closing."""
        self.fatal = why
        home, _, name = self.path.partition("/backend/")
        self.store.write(f"{home}/error/backend/{name}/error", why)
        self._set_state(abi.XenbusStateClosing)

    def close(self) -> None:
        """The toolstack takes the device away: nothing mapped, nothing watched, no more steps."""
        self.store.unwatch(f"{self.front}/state", self._front_changed)
        self._disconnect()
        self.closed = True

    def die(self) -> None:
        """The backend's own end, in the middle of whatever: Closing, Closed, nothing mapped."""
        self._set_state(abi.XenbusStateClosing)
        self._disconnect()
        self._set_state(abi.XenbusStateClosed)

    # The ring.

    def work(self) -> None:
        """Take the requests that are there and answer them, now or after the latency."""
        while self.ring is not None and not self.ring.halted:
            try:
                request = self.ring.take()
            except RingHalted:
                return
            if request is None:
                break
            self._handle(request)
        if self._ready and self.faults.latency:
            self.machine.clock.after(self.faults.latency, self._answer)
        elif self._ready:
            self._answer()

    def _handle(self, request: Request) -> None:
        number = len(self.seen)
        self.seen.append(request)
        if self.faults.strikes("dies", number):
            self.die()
            return
        if self.faults.never_answers is not None and number >= self.faults.never_answers:
            with contextlib.suppress(GrantRefused):
                self.held.append((request, list(self._map(request))))
            return
        self._ready.append((number, request, self._perform(request)))

    def _map(self, request: Request) -> Iterator[Mapping]:
        readonly = request.operation == abi.BLKIF_OP_WRITE
        for segment in request.segments:
            yield self.machine.gnttab.map(segment.gref, DOM0, readonly)

    def _perform(self, request: Request) -> int:
        """Do what a request asks. Returns its status."""
        if request.operation == abi.BLKIF_OP_FLUSH_DISKCACHE and not self.faults.no_flush:
            self.sink.flush()
            return abi.BLKIF_RSP_OKAY
        if request.operation not in (abi.BLKIF_OP_READ, abi.BLKIF_OP_WRITE):
            return abi.BLKIF_RSP_EOPNOTSUPP
        writes = request.operation == abi.BLKIF_OP_WRITE
        end = request.sector + request.sectors
        if not request.wellformed() or end > self.sink.size // SECTOR:
            return abi.BLKIF_RSP_ERROR
        if writes and (self.faults.read_only or self._full(request)):
            return abi.BLKIF_RSP_ERROR
        mappings: list[Mapping] = []
        try:
            for mapping in self._map(request):
                mappings.append(mapping)
            self._move(request, mappings, writes)
        except GrantRefused as error:
            self.fatal = str(error)
            return abi.BLKIF_RSP_ERROR
        finally:
            for mapping in mappings:
                mapping.unmap()
        return abi.BLKIF_RSP_OKAY

    def _full(self, request: Request) -> bool:
        """The disk under the backend takes no more: an error from so many written bytes on."""
        limit = self.faults.error_after
        return limit is not None and self.written + request.sectors * SECTOR > limit

    def _move(self, request: Request, mappings: list[Mapping], writes: bool) -> None:
        sector = request.sector
        for segment, mapping in zip(request.segments, mappings, strict=True):
            part = mapping.view[segment.first * SECTOR : (segment.last + 1) * SECTOR]
            if writes:
                self.sink.write(sector * SECTOR, bytes(part))
                self.written += len(part)
            else:
                part[:] = self.sink.read(sector * SECTOR, len(part))
            sector += len(part) // SECTOR

    def _answer(self) -> None:
        """Put the responses that are ready into the ring, faults included."""
        if self.ring is None:
            return
        ready, self._ready = self._ready, []
        if self.faults.reorder:
            self.machine.clock.random.shuffle(ready)
        for number, request, status in ready:
            for response in self.faults.responses(number, request, status):
                self.ring.respond(*response)
        notify = self.ring.push(self.faults.extra_responses(len(self.seen)))
        if notify:
            self.machine.evtchn.send(DOM0, self._port)
