"""The faults of a xenstore ring, by name: the classes of FAULTS, made by scenario.py.

Called by faultystorering.FaultyStoreRing at four places: an event passes, a reply passes, bytes
have been published, a turn is asked for. A fault strikes from `at` on (bytes or packets of replies
that the guest was given, bytes of requests that were taken, or ms since the ring was set up; at
once without), `times` times (0: for ever). The rule: all random choices come from the clock's
generator, so a seed repeats them.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from xenpv import abi

if TYPE_CHECKING:
    from .faultystorering import FaultyStoreRing

MS = 1_000_000  # ns
HEADER = "<IIII"
UNKNOWN_ID = 0x80000000
Index = Literal["req-cons", "req-prod", "rsp-cons", "rsp-prod"]
Side = Literal["guest", "server"]
OFFSETS = {
    "req-cons": abi.XENSTORE_RING_REQ_CONS,
    "req-prod": abi.XENSTORE_RING_REQ_PROD,
    "rsp-cons": abi.XENSTORE_RING_RSP_CONS,
    "rsp-prod": abi.XENSTORE_RING_RSP_PROD,
}
# Bytes of replies, and how many ns to wait before they are published.
Chunk = tuple[bytes, int]


@dataclass(frozen=True)
class At:
    """The moment when a fault begins to strike: exactly one of these."""

    bytes: int | None = None
    packets: int | None = None
    requests: int | None = None  # bytes
    time: int | None = None  # ms


@dataclass(kw_only=True)
class Fault:
    """Does nothing wrong; the base of those that do."""

    at: At = field(default_factory=At)
    times: int = 1
    struck: int = field(default=0, init=False)

    def strikes(self, ring: FaultyStoreRing) -> bool:
        """Return whether the fault strikes now, and count it if so."""
        at = self.at
        due = (
            ring.bytes >= (at.bytes or 0)
            and ring.packets >= (at.packets or 0)
            and ring.requests >= (at.requests or 0)
            and ring.age() >= (at.time or 0) * MS
        )
        if not due or (self.times and self.struck >= self.times):
            return False
        self.struck += 1
        return True

    def events(self, ring: FaultyStoreRing, to: str) -> int:
        """Return how many events arrive in place of one."""
        return 1

    def reply(self, ring: FaultyStoreRing, packet: bytes) -> list[Chunk]:
        """Return the chunks to publish in place of a reply."""
        return [(packet, 0)]

    def published(self, ring: FaultyStoreRing) -> None:
        """React to bytes that were published, possibly none."""

    def delay(self, ring: FaultyStoreRing) -> int:
        """Return the ns to wait before the ring is served."""
        return 0


@dataclass(kw_only=True)
class Torn(Fault):
    """The first `keep` bytes of a reply come, the others after a while (ms)."""

    keep: int = 7
    wait: int = 1

    def reply(self, ring: FaultyStoreRing, packet: bytes) -> list[Chunk]:
        if not self.strikes(ring):
            return [(packet, 0)]
        return [(packet[: self.keep], 0), (packet[self.keep :], self.wait * MS)]


@dataclass(kw_only=True)
class LostEvents(Fault):
    """Events to one side do not arrive."""

    to: Side

    def events(self, ring: FaultyStoreRing, to: str) -> int:
        return 0 if to == self.to and self.strikes(ring) else 1


@dataclass(kw_only=True)
class DoubledEvents(Fault):
    """Each event to one side arrives twice."""

    to: Side

    def events(self, ring: FaultyStoreRing, to: str) -> int:
        return 2 if to == self.to and self.strikes(ring) else 1


@dataclass(kw_only=True)
class Slow(Fault):
    """Each turn of the server comes `wait` ms late."""

    wait: int
    times: int = 0

    def delay(self, ring: FaultyStoreRing) -> int:
        return self.wait * MS if self.strikes(ring) else 0


@dataclass(kw_only=True)
class Dead(Fault):
    """The server does nothing any more."""

    def published(self, ring: FaultyStoreRing) -> None:
        if self.strikes(ring):
            ring.dead = True


@dataclass(kw_only=True)
class Reordered(Fault):
    """Replies that are there together go out in an order that is drawn; events keep theirs."""

    times: int = 0

    def reply(self, ring: FaultyStoreRing, packet: bytes) -> list[Chunk]:
        ring.shuffled = self.strikes(ring)
        return [(packet, 0)]


@dataclass(kw_only=True)
class IndexCorruption(Fault):
    """An index on the guest's page is `add` more than it should be."""

    index: Index
    add: int = field(metadata={"least": None})

    def published(self, ring: FaultyStoreRing) -> None:
        if self.strikes(ring):
            offset = OFFSETS[self.index]
            ring.guest.write(offset, ring.guest.read(offset) + self.add)
            ring.tell_guest()


@dataclass(kw_only=True)
class ChangingPage(Fault):
    """An index differs by `add` whenever it is fetched again before the next hypercall."""

    index: Index
    add: int = field(metadata={"least": None})

    def published(self, ring: FaultyStoreRing) -> None:
        if self.strikes(ring):
            ring.changing[OFFSETS[self.index]] = self.add


@dataclass(kw_only=True)
class Garbage(Fault):
    """`length` random bytes come in place of a reply."""

    length: int

    def reply(self, ring: FaultyStoreRing, packet: bytes) -> list[Chunk]:
        return [(ring.random.randbytes(self.length), 0)] if self.strikes(ring) else [(packet, 0)]


@dataclass(kw_only=True)
class _Header(Fault):
    """A reply with another header."""

    def reply(self, ring: FaultyStoreRing, packet: bytes) -> list[Chunk]:
        if not self.strikes(ring):
            return [(packet, 0)]
        fields = self.header(*struct.unpack_from(HEADER, packet))
        return [(struct.pack(HEADER, *fields) + packet[16:], 0)]

    def header(self, kind: int, req_id: int, tx_id: int, length: int) -> tuple[int, ...]:
        """Return the four fields of the header in place of the given ones."""
        raise NotImplementedError


@dataclass(kw_only=True)
class LongReply(_Header):
    """A length that no message may have."""

    length: int = abi.XENSTORE_PAYLOAD_MAX + 1

    def header(self, kind: int, req_id: int, tx_id: int, length: int) -> tuple[int, ...]:
        return kind, req_id, tx_id, self.length


@dataclass(kw_only=True)
class WrongType(_Header):
    """A reply has another type than its request."""

    def header(self, kind: int, req_id: int, tx_id: int, length: int) -> tuple[int, ...]:
        return (abi.XS_RM if kind != abi.XS_RM else abi.XS_READ), req_id, tx_id, length


@dataclass(kw_only=True)
class WrongTransaction(_Header):
    """A reply has the tx_id of another transaction."""

    def header(self, kind: int, req_id: int, tx_id: int, length: int) -> tuple[int, ...]:
        return kind, req_id, tx_id + 1, length


@dataclass(kw_only=True)
class LostReply(Fault):
    """A reply does not come."""

    def reply(self, ring: FaultyStoreRing, packet: bytes) -> list[Chunk]:
        return [] if self.strikes(ring) else [(packet, 0)]


@dataclass(kw_only=True)
class DoubledReply(Fault):
    """A reply comes twice."""

    def reply(self, ring: FaultyStoreRing, packet: bytes) -> list[Chunk]:
        return [(packet, 0)] * (2 if self.strikes(ring) else 1)


@dataclass(kw_only=True)
class UnknownReply(Fault):
    """A reply to a request that was never made comes before another."""

    def reply(self, ring: FaultyStoreRing, packet: bytes) -> list[Chunk]:
        kind, req_id, tx_id, _ = struct.unpack_from(HEADER, packet)
        if kind == abi.XS_WATCH_EVENT or not self.strikes(ring):
            return [(packet, 0)]
        stray = struct.pack(HEADER, kind, req_id ^ UNKNOWN_ID, tx_id, 3) + b"no\0"
        return [(stray, 0), (packet, 0)]


@dataclass(kw_only=True)
class EventWithoutNul(Fault):
    """A watch event whose payload is not two strings comes before a reply."""

    def reply(self, ring: FaultyStoreRing, packet: bytes) -> list[Chunk]:
        if not self.strikes(ring):
            return [(packet, 0)]
        event = struct.pack(HEADER, abi.XS_WATCH_EVENT, 0, 0, 6) + b"no NUL"
        return [(event, 0), (packet, 0)]


@dataclass(kw_only=True)
class RingReset(Fault):
    """The server forgets the connection and zeroes the ring, though nobody asked for that."""

    def published(self, ring: FaultyStoreRing) -> None:
        if self.strikes(ring):
            ring.reset()


@dataclass(kw_only=True)
class Crash(Fault):
    """The guest shuts down for a soft reset; `recovery` is what the toolstack is to do then."""

    recovery: Literal["soft-reset", "reintroduce", "resume"]

    def published(self, ring: FaultyStoreRing) -> None:
        if self.strikes(ring):
            ring.machine.shutdown(abi.SHUTDOWN_soft_reset)


FAULTS: dict[str, type[Fault]] = {
    "torn": Torn,
    "lost-events": LostEvents,
    "doubled-events": DoubledEvents,
    "slow": Slow,
    "dead": Dead,
    "reordered": Reordered,
    "index-corruption": IndexCorruption,
    "changing-page": ChangingPage,
    "garbage": Garbage,
    "long-reply": LongReply,
    "wrong-type": WrongType,
    "wrong-transaction": WrongTransaction,
    "lost-reply": LostReply,
    "doubled-reply": DoubledReply,
    "unknown-reply": UnknownReply,
    "event-without-nul": EventWithoutNul,
    "ring-reset": RingReset,
    "crash": Crash,
}
