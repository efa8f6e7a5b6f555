"""A block ring whose backend responds wrongly: late, in another order, or to no request.

Made by faultydisk.py in the place of the backend's ring; the worker takes requests from it and puts
responses into it as into any. The rule: requests are counted from 0 in the order of the ring, over
all connections of the device, and a fault strikes at the request whose number it has.
Source: xen/include/public/io/ring.h.
"""

from __future__ import annotations

import struct
from collections import deque
from typing import TYPE_CHECKING

from pvdump.blkback import ports
from pvdump.blkback.instance import Instance
from pvdump.blkback.negotiate import Front
from pvdump.blkback.ringmemory import RingMemory
from xenpv import abi
from xenpv.block.blkif import RESPONSE, Request
from xenpv.block.ring import BackRing
from xenpv.errors import RingCorrupt

if TYPE_CHECKING:
    from .faultydisk import FaultyDevice

DIED = "the backend dies"
FLUSHES = (abi.BLKIF_OP_FLUSH_DISKCACHE, abi.BLKIF_OP_WRITE_BARRIER)
# What XCP-ng's tapdisk does; newer ones know a flush as well. Source: blktap's drivers/td-req.c.
TAPDISK = (abi.BLKIF_OP_READ, abi.BLKIF_OP_WRITE, abi.BLKIF_OP_WRITE_BARRIER)
Response = tuple[int, int, int]  # id, operation, status


class FaultyBlockRing(BackRing):
    """The backend's end of a ring, with faults; call begin() before its first use."""

    def __init__(self, device: FaultyDevice, memory: RingMemory, front: Front) -> None:
        BackRing.__init__(self, memory, len(front.refs), front.layout, device.path)
        self._device = device
        self._faults = device.faults
        self._layout = front.layout
        self._given: deque[tuple[int, Request]] = deque()  # number and request
        self._ready: list[Response] = []
        self._waits = False
        self._dies = False

    def begin(self, worker: Instance, channel: ports.Channel) -> None:
        """Set the worker that serves the ring, and its channel."""
        self._worker = worker
        self._channel = channel

    def unanswered(self) -> bool:
        """Return whether there are requests without a response."""
        return self.memory.rd32(abi.SRING_REQ_PROD) != self.memory.rd32(abi.SRING_RSP_PROD)

    def take(self) -> bytes | None:
        """Take a request, or None; faults of requests strike here."""
        seen = self._device.seen
        while True:
            entry: bytes | None = BackRing.take(self)
            if entry is None:
                return None
            number, request = len(seen), self._layout.parse(entry)
            seen.append(request)
            if self._faults.strikes("dies", number):
                # What was taken before is still answered.
                self._dies = True
                return None
            if self._faults.never_answers is None or number < self._faults.never_answers:
                self._given.append((number, request))
                return entry
            self._device.hold(request)

    def rearm(self) -> bool:
        """Ask for the next event. Raises RingCorrupt once the backend has failed."""
        if self._dies:
            raise RingCorrupt(DIED)
        more: bool = BackRing.rearm(self)
        return more

    def respond(self, response: bytes) -> None:
        """Keep the responses that a response becomes by its faults."""
        number, request = self._given.popleft()
        answer, operation, status = struct.unpack(RESPONSE, response)
        refused = self._faults.no_flush and request.op in FLUSHES
        if refused or (self._faults.tapback and request.op not in TAPDISK):
            status = abi.BLKIF_RSP_EOPNOTSUPP
        self._ready += self._faults.responses(number, (answer, operation, status))

    def push(self) -> bool:
        """Publish the responses, at once or later. Returns whether to notify."""
        if not (self._faults.latency or self._faults.reorder):
            return self._answer()
        if not self._waits:
            self._waits = True
            self._device.clock.after(self._faults.latency, self._late)
        return False

    def _late(self) -> None:
        self._waits = False
        if not self._worker.gone and self._answer():
            self._channel.notify()

    def _answer(self) -> bool:
        if self._faults.reorder:
            self._device.clock.random.shuffle(self._ready)
        for response in self._ready:
            BackRing.respond(self, struct.pack(RESPONSE, *response))
        self._ready.clear()
        tell: bool = BackRing.push(self)
        overflow = self._faults.overflow
        if overflow is None or len(self._device.seen) <= overflow:
            return tell
        prod = self.memory.rd32(abi.SRING_RSP_PROD)
        self.memory.wr32(abi.SRING_RSP_PROD, (prod + self.slots + 1) & 0xFFFFFFFF)
        return True
