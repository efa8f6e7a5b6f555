"""The store's end of a guest's shared page.

It is a step of the other side of the embedded machine, asked for by the guest's event channel and
by packets that wait. Rules:
- Indexes are checked before use. A client that breaks the ring is ignored from then on, with the
  reason in `error` if the page offers that.
- With RECONNECTION, a guest that sets `connection` has all its requests, replies, watches and
  transactions dropped, both rings filled with a pattern, the indexes zeroed and the flag cleared,
  and gets an event; that also repairs a broken ring. Without it the field is never read, as in C
  xenstored.
Source: xen/include/public/io/xs_wire.h; Xen docs/misc/xenstore-ring.txt.
"""

from __future__ import annotations

import hw
from pvdump.xenstored.server import Xenstored
from xenpv import abi
from xenpv.bytering import ByteRing
from xenpv.errors import RingCorrupt
from xenpv.xenstore.wire import Packet, Parser

from .machine import DOM0, Machine

SIZE = abi.XENSTORE_RING_SIZE
PATTERN = b"deadbeef"
# Requests whose payload is one path.
ONE_PATH = (abi.XS_DIRECTORY, abi.XS_READ, abi.XS_GET_PERMS, abi.XS_MKDIR, abi.XS_RM)


def aborts(packet: Packet) -> bool:
    """Return whether C xenstored 4.17 may abort on a guest's request.

    It may on one of a single path whose payload is not one string with its NUL at the end: then it
    answers errno, and aborts where that is 0.
    Source: tools/xenstore/xenstored_core.c (onearg, get_node_canonicalized, consider_message).
    """
    payload = packet.payload
    return packet.type in ONE_PATH and (not payload or payload.find(b"\0") != len(payload) - 1)


class RingTransport:
    """A domain's connection over its page; making it introduces the domain.

    Args:
        machine: the domain's machine.
        server: the store.
        gfn: frame of the page.
        port: the guest's end of the event channel, offered to domain 0.
        features: server_features, by default what the server has for this domain.
        late: ns until the features appear on the page.
        pattern: bytes that fill both rings at a reconnect.
        start: (request, reply) index at which the crashed kernel left the rings.
        reorder: whether replies go out in an order that the seed draws.
        piecemeal: whether a step moves few bytes, a number that the seed draws.
        fragile: whether the server ends where aborts() says that C xenstored 4.17 may.
    """

    def __init__(
        self,
        machine: Machine,
        server: Xenstored,
        gfn: int,
        port: int,
        *,
        features: int | None = None,
        late: int = 0,
        pattern: bytes = PATTERN,
        start: tuple[int, int] = (0, 0),
        reorder: bool = False,
        piecemeal: bool = False,
        fragile: bool = False,
    ) -> None:
        self.machine = machine
        self.server = server
        self.page = gfn * abi.PAGE_SIZE
        self.pattern = pattern
        self.reorder = reorder
        self.piecemeal = piecemeal
        self._fragile = Parser() if fragile else None
        self.broken: str | None = None  # why the guest is ignored
        self.reconnects = 0
        self.deaf = False  # whether the server has stopped: it takes and gives nothing
        self.closed = False
        domain = server.domain(machine.domid)
        if features is not None:
            domain.features = features
        self.features = domain.features
        if domain.transport is not None:
            domain.transport.close()  # the guest's end may be the same: it is offered again
        self.port = machine.evtchn.bind_interdomain(DOM0, machine.domid, port)
        machine.evtchn.on(DOM0, self.port, self.step)
        self._requests = self._ring("request", abi.XENSTORE_RING_REQ, abi.XENSTORE_RING_REQ_PROD)
        self._replies = self._ring("reply", abi.XENSTORE_RING_RSP, abi.XENSTORE_RING_RSP_PROD)
        hw.mem(self.page, abi.PAGE_SIZE)[:] = bytes(abi.PAGE_SIZE)
        self._set_indexes(*start)
        if late:
            machine.clock.after(late, self._offer)
        else:
            self._offer()
        self.connection = server.introduce(machine.domid, self)
        self.connection.attach(
            wake=self._wake, now=lambda: machine.clock.now, wake_at=self._wake_at
        )

    def _offer(self) -> None:
        with hw.attached(self.machine):
            hw.wr32(self.page + abi.XENSTORE_RING_SERVER_FEATURES, self.features)

    def close(self) -> None:
        """End it: the domain is released, or introduced anew on another page or port."""
        if not self.closed:
            self.closed = True
            self.machine.evtchn.close(DOM0, self.port)

    def _ring(self, name: str, data: int, prod: int) -> ByteRing:
        page = self.page
        return ByteRing(page + data, SIZE, page + prod, page + prod - 4, f"xenstore {name}")

    def _set_indexes(self, request: int, reply: int) -> None:
        hw.wr32(self.page + abi.XENSTORE_RING_REQ_CONS, request)
        hw.wr32(self.page + abi.XENSTORE_RING_REQ_PROD, request)
        hw.wr32(self.page + abi.XENSTORE_RING_RSP_CONS, reply)
        hw.wr32(self.page + abi.XENSTORE_RING_RSP_PROD, reply)

    def indexes(self) -> tuple[int, int, int, int]:
        """Read (req_cons, req_prod, rsp_cons, rsp_prod) from the page."""
        at = self.page + abi.XENSTORE_RING_REQ_CONS
        return tuple(hw.rd32(at + 4 * i) for i in range(4))  # type: ignore[return-value]

    # What the crashed kernel left.

    def leave_request(self, data: bytes) -> None:
        """Put bytes into the request ring that the crashed kernel wrote, whole packets or not."""
        if self._requests.write(data) != len(data):
            raise ValueError(f"{len(data)} bytes do not fit into the request ring")
        self.machine.clock.soon(self.step)

    def leave_reply(self, data: bytes, read: int = 0) -> None:
        """Put bytes into the reply ring of which the crashed kernel read the first few."""
        if self._replies.write(data) != len(data):
            raise ValueError(f"{len(data)} bytes do not fit into the reply ring")
        self._replies.read(read)

    # The server at work.

    def _wake(self) -> None:
        self.machine.clock.soon(self.step)

    def _wake_at(self, when: int) -> None:
        self.machine.clock.at(when, self.connection.expire)

    def step(self) -> None:
        """Serve the ring once."""
        # Another domain may be the one that runs.
        with hw.attached(self.machine):
            self._work()

    def _work(self) -> None:
        if self.deaf or self.closed:
            return
        if self.features & abi.XENSTORE_SERVER_FEATURE_RECONNECTION:
            flag = hw.rd32(self.page + abi.XENSTORE_RING_CONNECTION)
            if flag == abi.XENSTORE_RECONNECT:
                self._reconnect()
                return
        if self.broken is not None:
            return
        try:
            moved = self._take() + self._give()
        except RingCorrupt as error:
            self._break(error)
            return
        if moved:
            self.machine.evtchn.send(DOM0, self.port)
            # There may be more on the ring than one step moves.
            self.machine.clock.soon(self.step)

    def _limit(self) -> int:
        return self.machine.clock.random.randint(1, 64) if self.piecemeal else SIZE

    def _take(self) -> int:
        self.connection.work()
        if self.connection.stalled():
            return 0
        data = self._requests.read(self._limit())
        if self._fragile is not None and self._ends(self._fragile, data):
            return 0
        self.connection.receive(data)
        return len(data)

    def _ends(self, parser: Parser, data: bytes) -> bool:
        """Return whether the next bytes end the server, and end it if so."""
        parser.feed(data)
        while (packet := parser.next()) is not None:
            if aborts(packet):
                self.broken = f"the server has aborted on {packet}"
                self.deaf = True
        return self.deaf

    def _give(self) -> int:
        moved = 0
        if self.reorder:
            self.connection.shuffle(self.machine.clock.random.randrange)
        while self.connection.pending():
            count = self._replies.write(self.connection.take(self._limit()))
            if count == 0:
                break
            self.connection.drop(count)
            moved += count
            if self.piecemeal:
                break
        return moved

    def _reconnect(self) -> None:
        self.connection.reset()
        self._fragile = self._fragile and Parser()
        self.broken = None
        self.reconnects += 1
        filled = self.pattern * (2 * SIZE // len(self.pattern) + 1)
        hw.mem(self.page, 2 * SIZE)[:] = filled[: 2 * SIZE]
        self._set_indexes(0, 0)
        if self.features & abi.XENSTORE_SERVER_FEATURE_ERROR:
            hw.wr32(self.page + abi.XENSTORE_RING_ERROR, abi.XENSTORE_ERROR_NONE)
        # The page is as new before the guest is told so.
        hw.wmb()
        hw.wr32(self.page + abi.XENSTORE_RING_CONNECTION, abi.XENSTORE_CONNECTED)
        self.machine.evtchn.send(DOM0, self.port)

    def _break(self, error: RingCorrupt) -> None:
        self.broken = str(error)
        self.connection.reset()
        if self.features & abi.XENSTORE_SERVER_FEATURE_ERROR:
            index = "ring:" in self.broken
            code = abi.XENSTORE_ERROR_RINGIDX if index else abi.XENSTORE_ERROR_PROTO
            hw.wr32(self.page + abi.XENSTORE_RING_ERROR, code)
        self.machine.evtchn.send(DOM0, self.port)
