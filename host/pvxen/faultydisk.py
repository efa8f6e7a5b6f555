"""The backend of pvdump.blkback on an embedded domain's disk, with faults put in at its edges.

Made by domain.EmbeddedDomain.disk(). Nothing of the backend is implemented twice: faults are added
where it meets others. One filter stands between it and the front end's states, another between it
and its keys, its sink may be full, and its ring (faultyblockring.py) may give wrong responses. The
rule: with no fault it is the backend itself, but as strict about states as Linux's: only from
Closed does Initialising begin anew, and while it is connected it reads no new ring.
Source: Linux drivers/block/xen-blkback/xenbus.c (frontend_changed).
"""

from __future__ import annotations

import errno
from typing import Any

from pvdump.blkback import ports
from pvdump.blkback.device import Device
from pvdump.blkback.instance import Instance
from pvdump.blkback.negotiate import OFFERS, PROPERTIES, Front, Unusable
from pvdump.blkback.ringmemory import RingMemory
from pvdump.blkback.sink import Sink
from xenpv.abi import (
    XenbusStateClosed,
    XenbusStateClosing,
    XenbusStateConnected,
    XenbusStateInitialised,
    XenbusStateInitialising,
)
from xenpv.block.blkif import SECTOR, Request
from xenpv.block.ring import BackRing

from .clock import Clock
from .faults import Faults
from .faultyblockring import DIED, FaultyBlockRing

FLUSHES = ("feature-flush-cache", "feature-barrier")
# All that XCP-ng's tapback says. Source: blktap's tapback/backend.c, frontend.c.
TAPBACK = ("max-ring-page-order", "sectors", "sector-size", "info", "feature-barrier")
TAPBACK_RING_ORDER = "3"
# States of a front end that a backend in a state of its own ignores, as in Linux.
STRICT = {
    XenbusStateConnected: (XenbusStateInitialising, XenbusStateInitialised, XenbusStateConnected),
    XenbusStateClosing: (XenbusStateInitialising,),
}
# States of a front end that a backend with a fault ignores.
IGNORED = {
    "stuck_closing": (XenbusStateClosed,),
    "ignores_closing": (XenbusStateClosing, XenbusStateClosed),
    "never_connects": (XenbusStateInitialised, XenbusStateConnected),
}
NO_EFFECT = 7  # Reconfiguring, which no backend of disks acts on


class FaultySink:
    """A sink that takes a bounded number of bytes, or has sectors of another size."""

    direct: int | None = None

    def __init__(self, sink: Sink, faults: Faults) -> None:
        self._sink = sink
        self._limit = faults.error_after
        self._taken = bytearray(sink.size // SECTOR)
        self.size = sink.size
        self.sector_size = self.physical = faults.sector_size
        self.granularity = sink.granularity
        self.read = sink.read
        self.flush = sink.flush
        self.discard = sink.discard

    def write(self, offset: int, buffers: list[memoryview]) -> None:
        """Write. Raises OSError ENOSPC where new sectors exceed the limit."""
        first, last = offset // SECTOR, (offset + sum(map(len, buffers))) // SECTOR
        if self._limit is not None:
            new = self._taken.count(0, first, last)
            if (self._taken.count(1) + new) * SECTOR > self._limit:
                raise OSError(errno.ENOSPC, "no space left")
            self._taken[first:last] = b"\1" * (last - first)
        self._sink.write(offset, buffers)

    def measure(self) -> None:
        """Do nothing: the size stays."""

    def close(self) -> None:
        """Leave it open: its maker may attach it again."""


class FaultyDevice(Device):
    """A disk's backend with faults.

    Args:
        sink: the content of the disk, without faults.
        faults: those of the backend.
        clock: of its Xen.
        args: of Device.

    Attributes:
        states: each state it has had, in order.
        seen: each request, in the order of the ring.
        held: requests that are never answered, with their frames.
    """

    def __init__(self, sink: Sink, faults: Faults, clock: Clock, *args: Any) -> None:
        self.sink = sink
        self.faults = faults
        self.clock = clock
        self.states: list[int] = []
        self.seen: list[Request] = []
        self.held: list[tuple[Request, ports.MappedFrames]] = []
        self._busy_until = 0  # ns
        self._crashed = False
        self._faulty_ring: FaultyBlockRing | None = None
        self._withheld = {*(OFFERS if faults.plain else ()), *(FLUSHES if faults.no_flush else ())}
        if faults.tapback:
            self._withheld |= {*OFFERS, *PROPERTIES} - {*TAPBACK}
        super().__init__(*args)

    # States and keys.

    def step(self) -> bool:
        """Do the device's next step; one that failed on purpose goes to Closed."""
        if self.instance is not None and self.instance.gone:
            self._release()
            if self.instance.fault == DIED:
                self.instance = None
                self._set_state(XenbusStateClosing)
                self._set_state(XenbusStateClosed)
        return super().step()

    def _front_state(self) -> int:
        state = super()._front_state()
        return NO_EFFECT if self._ignores(state) else state

    def _ignores(self, state: int) -> bool:
        if self._crashed:
            return True
        if any(getattr(self.faults, name) and state in states for name, states in IGNORED.items()):
            return True
        if self.faults.no_init_wait and self.state == XenbusStateClosed:
            return state == XenbusStateInitialising
        return state in STRICT.get(self.state, ())

    def _set_state(self, state: int, keys: dict[str, str] | None = None) -> None:
        before = self.state
        kept = {key: value for key, value in (keys or {}).items() if key not in self._withheld}
        if self.faults.tapback and "max-ring-page-order" in kept:
            kept["max-ring-page-order"] = TAPBACK_RING_ORDER
        super()._set_state(state, kept)
        if self.state != before:
            self.states.append(self.state)

    # The connection.

    def _make(self, front: Front) -> tuple[Instance, ports.Channel]:
        if self.clock.now < self._busy_until:
            raise Unusable("pending I/O")
        instance, channel = super()._make(front)
        assert self._faulty_ring is not None
        self._faulty_ring.begin(instance, channel)
        return instance, channel

    def _make_ring(self, memory: RingMemory, front: Front) -> BackRing:
        self._faulty_ring = FaultyBlockRing(self, memory, front)
        return self._faulty_ring

    def _let_go(self) -> bool:
        was_connected = self.instance is not None
        if was_connected and self.faults.fragile and self._faulty_ring is not None:
            self._crashed |= self._faulty_ring.unanswered()
        gone = super()._let_go()
        if gone and was_connected:
            self._release()
        return gone

    def _release(self) -> None:
        """Unmap what was held: the connection has ended."""
        self._busy_until = self.clock.now + self.faults.lingers
        for _, frames in self.held:
            frames.unmap()
        self.held.clear()

    def hold(self, request: Request) -> None:
        """Keep a request for ever, and what it lends mapped."""
        refs = [segment[0] for segment in request.segments] or request.grefs
        try:
            frames = self._xen.grants(self.domid).map(refs, False)
        except ports.Refused:
            return
        self.held.append((request, frames))
