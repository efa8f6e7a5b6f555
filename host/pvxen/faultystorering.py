"""A xenstore ring between guest and server on which things go wrong.

Made by a domain whose scenario has faults of the store. The server serves a page of its own, the
back page. This relay stands between that and the guest's page: it passes bytes and events in both
directions, and each fault (ringfaults.py) may change them. The rule: with no fault the guest cannot
tell it from the server, because after each move it reads the ring again and notifies the other
side.
Source: xen/include/public/io/xs_wire.h; Xen docs/misc/xenstore-ring.txt.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from xenpv import abi

from .evtchn import Port
from .hypervisor import DOM0
from .ringfaults import OFFSETS, ChangingPage, Chunk, Fault

if TYPE_CHECKING:
    from .machine import Machine
    from .storering import RingTransport

SIZE = abi.XENSTORE_RING_SIZE
HEADER_SIZE = abi.XSD_SOCKMSG_SIZEOF
U32 = 0xFFFFFFFF


class Page:
    """One of the two pages; mem: its 4096 bytes."""

    def __init__(self, mem: memoryview) -> None:
        self.mem = mem

    def read(self, offset: int) -> int:
        """Return the u32 at an offset."""
        return int.from_bytes(self.mem[offset : offset + 4], "little")

    def write(self, offset: int, value: int) -> None:
        """Write a u32 at an offset, modulo 2^32."""
        struct.pack_into("<I", self.mem, offset, value & U32)

    def take(self, data: int, prod: int, cons: int, limit: int) -> bytes:
        """Consume up to `limit` bytes. Nothing when the indexes are impossible."""
        start, end = self.read(cons), self.read(prod)
        used = (end - start) & U32
        count = min(used, limit) if used <= SIZE else 0
        taken = bytes(self.mem[data + (start + i) % SIZE] for i in range(count))
        self.write(cons, start + count)
        return taken

    def put(self, data: int, prod: int, cons: int, content: bytes) -> int:
        """Produce what there is room for. Returns how many bytes."""
        start = self.read(prod)
        used = (start - self.read(cons)) & U32
        count = min(len(content), SIZE - used) if used <= SIZE else 0
        for i in range(count):
            self.mem[data + (start + i) % SIZE] = content[i]
        self.write(prod, start + count)
        return count


REQUESTS = (abi.XENSTORE_RING_REQ, abi.XENSTORE_RING_REQ_PROD, abi.XENSTORE_RING_REQ_CONS)
REPLIES = (abi.XENSTORE_RING_RSP, abi.XENSTORE_RING_RSP_PROD, abi.XENSTORE_RING_RSP_CONS)


def _until(marks: Sequence[int | None], moved: int) -> int:
    """Return how many bytes may pass before the next mark of a fault."""
    return min((mark - moved for mark in marks if mark and mark > moved), default=SIZE)


class FaultyStoreRing:
    """The relay between the guest's page and the server's.

    Args:
        machine: the guest.
        transport: the server's, on the back page.
        gfn: the guest's page.
        faults: what goes wrong, in this order.

    Attributes:
        bytes, packets (int): of replies that the guest has been given.
        requests (int): bytes that were taken from the guest.
        dead (bool): nothing moves any more.
        changing (dict): offset of an index to what is added when it is fetched twice.
    """

    def __init__(
        self, machine: Machine, transport: RingTransport, gfn: int, faults: Sequence[Fault]
    ) -> None:
        self.machine = machine
        self.faults = faults
        self.random = machine.clock.random
        self.guest = Page(machine.page(gfn))
        self.back = Page(machine.page(transport.page // abi.PAGE_SIZE))
        self.bytes = 0
        self.packets = 0
        self.requests = 0
        self.dead = False
        self.shuffled = False
        self.changing: dict[int, int] = {}
        self._transport = transport
        self._began = machine.clock.now
        self._stream = b""  # of the server's replies, less than a packet
        self._held: list[list[Chunk]] = []  # replies to be shuffled
        self._out: deque[Chunk] = deque()
        self._waits = False
        self._reconnects = False
        self._gfn = gfn
        self._fetched: dict[int, int] = {}  # offset to the number of the hypercall
        self._server_port = machine.evtchn.port(DOM0, transport.port)
        self._guest_port = machine.evtchn.port(machine.domid, self._server_port.remote_port)
        self._server_port.intercept = lambda: self._event("server", self._ask)
        self._guest_port.intercept = self._ask
        self.guest.mem[:] = self.back.mem
        if any(isinstance(fault, ChangingPage) for fault in faults):
            machine.reread = self._reread
        self._published()

    def age(self) -> int:
        """Return the ns since the ring was set up."""
        return self.machine.clock.now - self._began

    # Events.

    def _event(self, to: str, arrive: Callable[[], None]) -> None:
        count = 1
        for fault in self.faults:
            count *= fault.events(self, to)
        for _ in range(count):
            arrive()

    def tell_guest(self) -> None:
        """Send the guest an event, subject to the faults."""
        self._event("guest", lambda: self._deliver(self._guest_port))

    def _deliver(self, port: Port) -> None:
        if self.machine.evtchn.ports.get((port.domid, port.number)) is port:
            self.machine.evtchn.deliver(port)

    def _ask(self) -> None:
        """Ask for a turn, now or later if a fault delays it."""
        late = max((fault.delay(self) for fault in self.faults), default=0)
        if late:
            self.machine.clock.after(late, self._turn)
        else:
            self.machine.clock.soon(self._turn)

    # Bytes.

    def _turn(self) -> None:
        if self.dead or self._transport.closed:
            return
        for offset in (abi.XENSTORE_RING_SERVER_FEATURES, abi.XENSTORE_RING_ERROR):
            self.guest.write(offset, self.back.read(offset))
        if self._reconnect():
            return
        requests, replies = self._pass_requests(), self._take_replies()
        moved = self._publish()
        self._published()
        if requests or replies:
            self._deliver(self._server_port)
        if moved or requests:
            self.tell_guest()
            self._ask()

    def _pass_requests(self) -> int:
        prod, cons = (self.guest.read(offset) for offset in REQUESTS[1:])
        if (prod - cons) & U32 > SIZE:
            # For the server to judge, which looks at such a ring once.
            self.back.write(REQUESTS[1], self.back.read(REQUESTS[2]) + prod - cons)
            self._deliver(self._server_port)
            return 0
        back_prod, back_cons = (self.back.read(offset) for offset in REQUESTS[1:])
        room = SIZE - ((back_prod - back_cons) & U32)
        marks = [fault.at.requests for fault in self.faults]
        limit = min(room, _until(marks, self.requests))
        data = self.guest.take(*REQUESTS, limit=max(limit, 0))
        self.back.put(*REQUESTS, content=data)
        self.requests += len(data)
        return len(data)

    def _take_replies(self) -> int:
        """Take all that the server has, and let whole packets go through the faults."""
        data = self.back.take(*REPLIES, limit=SIZE)
        self._stream += data
        while len(self._stream) >= HEADER_SIZE:
            (length,) = struct.unpack_from("<I", self._stream, abi.XSD_SOCKMSG_LEN)
            if len(self._stream) < HEADER_SIZE + length:
                break
            packet = self._stream[: HEADER_SIZE + length]
            self._stream = self._stream[HEADER_SIZE + length :]
            self._pass_reply(packet)
        if self._held and not data:
            self._release()
        return len(data)

    def _pass_reply(self, packet: bytes) -> None:
        chunks: list[Chunk] = [(packet, 0)]
        for fault in self.faults:
            # Only what is a packet still goes to the next fault.
            chunks = fault.reply(self, packet) if chunks == [(packet, 0)] else chunks
        self.packets += 1
        if self.shuffled and packet[0] != abi.XS_WATCH_EVENT:
            self._held.append(chunks)
            self.machine.clock.soon(self._turn)
        else:
            self._out.extend(chunks)

    def _release(self) -> None:
        self.random.shuffle(self._held)
        for chunks in self._held:
            self._out.extend(chunks)
        self._held.clear()

    def _publish(self) -> int:
        """Put replies on the guest's page. Returns how many bytes."""
        moved = 0
        while self._out and not self._waits and not self.dead:
            data, late = self._out[0]
            if late:
                self._out[0] = (data, 0)
                self._waits = True
                self.machine.clock.after(late, self._wait_is_over)
                break
            marks = [fault.at.bytes for fault in self.faults]
            count = self.guest.put(*REPLIES, content=data[: _until(marks, self.bytes)])
            if count == 0 and data:
                break
            self._out.popleft()
            if count < len(data):
                self._out.appendleft((data[count:], 0))
            self.bytes += count
            moved += count
            self._published()
        return moved

    def _wait_is_over(self) -> None:
        self._waits = False
        self._turn()

    def _published(self) -> None:
        for fault in self.faults:
            fault.published(self)

    # The connection made anew.

    def _forget(self) -> None:
        self._stream = b""
        self._held.clear()
        self._out.clear()

    def _reconnect(self) -> bool:
        """Relay the reconnect handshake. Returns whether this turn has nothing else to do."""
        features = self.back.read(abi.XENSTORE_RING_SERVER_FEATURES)
        if not features & abi.XENSTORE_SERVER_FEATURE_RECONNECTION:
            return False
        flag = abi.XENSTORE_RING_CONNECTION
        if not self._reconnects and self.guest.read(flag) == abi.XENSTORE_RECONNECT:
            self._forget()
            self._reconnects = True
            self.back.write(flag, abi.XENSTORE_RECONNECT)
            self._deliver(self._server_port)
            return True
        if self._reconnects and self.back.read(flag) == abi.XENSTORE_CONNECTED:
            self._reconnects = False
            self.guest.mem[:] = self.back.mem
            self.tell_guest()
        return self._reconnects

    def reset(self) -> None:
        """Forget the connection, and zero the indexes on both pages."""
        self._forget()
        self._transport.connection.reset()
        for page in (self.guest, self.back):
            for offset in OFFSETS.values():
                page.write(offset, 0)
        self.tell_guest()

    def _reread(self, addr: int, value: int) -> int:
        """Return the u32 that the guest gets when it fetches one that is `value`."""
        offset = addr - self._gfn * abi.PAGE_SIZE
        if offset in self.changing:
            again = self._fetched.get(offset) == self.machine.hypercalls
            self._fetched[offset] = self.machine.hypercalls
            if again:
                return (value + self.changing[offset]) & U32
        return value
