"""The worker of one connected front end: it takes requests, does them, and answers.

Made by a device at connect; a thread (dom0.py) or a clock (embedded.py) calls step() whenever what
it waits for has come. The rules: the worker alone moves its state, and others only wake it or ask
it to leave; in one step it does at most one ring's worth, so that others get their turn; when
memory or the disk stalls, it is only this worker that waits, with its requests kept in order;
requests that continue each other on the disk become one vectored read or write on the guest's own
memory. Answers are given in the order of the requests, so whoever connects to the ring after a
backend that died goes on with the first one unanswered.
States and rules are those of NetBSD's xbdback since its rework of 2011.
Source: NetBSD sys/arch/xen/xen/xbdback_xenbus.c, for its behaviour.
"""

from __future__ import annotations

import enum
import errno
import itertools
import struct
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from xenpv.abi import PAGE_SIZE
from xenpv.blkif import OP_NAMES, RESPONSE, SECTOR, Layout, Request
from xenpv.blkring import BackRing
from xenpv.errors import RingCorrupt

from . import ports, request
from .frames import Pool, buffers
from .ports import Refused, Stalled, Wait
from .request import BARRIER, DISCARD, EOPNOTSUPP, ERROR, FLUSH, OKAY, READ, WRITE, BadRequest, Job
from .ringmemory import RingMemory
from .sink import Sink

JOINED = 1024  # frames of one I/O
UNABLE = (errno.EOPNOTSUPP, errno.ENOTTY)  # a file or disk that knows no discard
Complain = Callable[[str], None]


class State(enum.Enum):
    WAITING = "waiting"
    RUN = "run"
    DISCONNECTING = "disconnecting"
    DISCONNECTED = "disconnected"


@dataclass
class Counts:
    """Since the device was made. joined: I/Os that served more than one request; bytes."""

    requests: dict[str, int] = field(default_factory=dict)
    read: int = 0
    written: int = 0
    ios: int = 0
    joined: int = 0
    errors: int = 0
    stalls: int = 0


@dataclass
class Connection:
    """What a worker holds of Xen while it is connected, taken at connect for a full ring."""

    layout: Layout
    grants: ports.Grants
    frames: ports.Frames
    memory: RingMemory
    ring: BackRing
    channel: ports.Channel
    pool: Pool

    def close(self) -> None:
        """In the reverse order of how it was taken."""
        self.pool.close()
        self.memory.close()
        self.frames.unmap()
        self.channel.close()
        self.grants.close()


class Instance:
    """complain: takes what the guest does wrong; ended: called once, by the worker, at its end."""

    def __init__(
        self,
        name: str,
        connection: Connection,
        sink: Sink,
        geometry: request.Geometry,
        counts: Counts,
        complain: Complain,
        ended: Callable[[], None],
    ) -> None:
        self.name = name
        self.state = State.WAITING
        self.fault = ""  # how the front end broke the ring
        self.wake: Callable[[], None] = lambda: None
        self._connection = connection
        self._ring = connection.ring
        self._sink = sink
        self._geometry = geometry
        self._counts = counts
        self._complain = complain
        self._ended = ended
        self._leaving = False
        self._entry: bytes | None = None  # taken, not yet read through
        self._jobs: deque[Job] = deque()
        # A backend that died may have answered and not told.
        connection.channel.notify()

    def disconnect(self) -> None:
        """Ask the worker to leave. What it is doing it ends, what it has not begun it leaves."""
        self._leaving = True
        self.wake()

    def fail(self, why: str) -> None:
        """End the connection for a reason; by whoever gives the worker its turns."""
        self.fault = why
        self._disconnect()

    @property
    def gone(self) -> bool:
        return self.state is State.DISCONNECTED

    def step(self) -> Wait:
        """One ring's worth. Returns what the next step is to wait for."""
        if self.gone:
            return Wait.END
        if self._leaving:
            return self._disconnect()
        self.state = State.RUN
        try:
            self._fetch()
            while self._jobs and not self._leaving:
                self._do(self._next())
            more = self._ring.rearm()
        except Stalled:
            self._counts.stalls += 1
            self.state = State.WAITING
            return Wait.LATER
        except RingCorrupt as error:
            self.fail(str(error))
            return Wait.END
        if more or self._leaving:
            return Wait.NOTHING
        self.state = State.WAITING
        return Wait.EVENT

    def _disconnect(self) -> Wait:
        self.state = State.DISCONNECTING
        self._connection.close()
        self.state = State.DISCONNECTED
        self._ended()
        return Wait.END

    # Parse.

    def _fetch(self) -> None:
        """Take what the ring holds: never more than fits, since answers make its room.

        Raises RingCorrupt, Stalled.
        """
        while True:
            if self._entry is None:
                self._entry = self._ring.take()
            if self._entry is None:
                return
            parsed = self._connection.layout.parse(self._entry)
            try:
                job = self._judge(parsed)
            except (BadRequest, Refused) as error:
                self._counts.errors += 1
                self._complain(str(error))
                status = error.status if isinstance(error, BadRequest) else ERROR
                job = Job(parsed.id, parsed.op, 0, 0, status=status)
            self._jobs.append(job)
            self._entry = None

    def _judge(self, parsed: Request) -> Job:
        request.check_kind(parsed, self._geometry)
        segments = parsed.segments
        if parsed.is_indirect:
            pages = request.pages_of_segments(parsed)
            size = 8 * parsed.count
            places, spare = self._connection.pool.take(parsed.grefs[:pages], False)
            data = b"".join(
                bytes(piece) for frames, at in places for piece in frames.slices(at, at + PAGE_SIZE)
            )
            if spare is not None:
                spare.unmap()
            segments = request.segments_in(data[:size])
        return request.job(parsed, segments, self._geometry)

    # Map and I/O.

    def _next(self) -> list[Job]:
        """The first job, with those behind it that continue it on the disk."""
        first = self._jobs[0]
        group = [first]
        if first.status is not None or first.op not in (READ, WRITE):
            return group
        end, frames = first.sector + first.count, len(first.refs)
        for job in itertools.islice(self._jobs, 1, None):
            frames += len(job.refs)
            if job.status is not None or job.op != first.op:
                break
            if job.sector != end or frames > JOINED:
                break
            group.append(job)
            end += job.count
        return group

    def _do(self, group: list[Job]) -> None:
        """Do jobs from the head of the queue together and answer them. Raises Stalled."""
        status = group[0].status
        try:
            if status is None:
                self._transfer(group)
                status = OKAY
        except (Refused, OSError) as error:
            if len(group) > 1:
                # Each for itself: the others shall not suffer for one.
                for job in group:
                    self._do([job])
                return
            status = self._failed(group[0], error)
        for job in group:
            self._count(job)
            self._jobs.popleft()
            self._ring.respond(struct.pack(RESPONSE, job.id, job.op, status))
        if self._ring.push():
            self._connection.channel.notify()

    def _failed(self, job: Job, error: Refused | OSError) -> int:
        if job.op == DISCARD and isinstance(error, OSError) and error.errno in UNABLE:
            return EOPNOTSUPP
        self._counts.errors += 1
        self._complain(f"{job}: {error}")
        return ERROR

    def _transfer(self, group: list[Job]) -> None:
        op, offset = group[0].op, group[0].sector * SECTOR
        if op == DISCARD:
            self._sink.discard(offset, group[0].count * SECTOR)
            return
        if op in (FLUSH, BARRIER):
            self._sink.flush()
        if group[0].refs:
            refs, firsts, lasts = _segments(group)
            places, spare = self._connection.pool.take(refs, op == READ)
            try:
                move = self._sink.read if op == READ else self._sink.write
                move(offset, buffers(places, firsts, lasts))
            finally:
                if spare is not None:
                    spare.unmap()
            self._counts.ios += 1
            self._counts.joined += len(group) > 1
        if op == BARRIER:
            self._sink.flush()

    def _count(self, job: Job) -> None:
        if job.status is not None:
            return
        counts, name = self._counts, OP_NAMES[job.op]
        counts.requests[name] = counts.requests.get(name, 0) + 1
        if job.op == READ:
            counts.read += job.count * SECTOR
        elif job.op != DISCARD:
            counts.written += job.count * SECTOR


def _segments(group: list[Job]) -> tuple[tuple[int, ...], ...]:
    """refs, firsts and lasts of all jobs, one behind the other."""
    if len(group) == 1:
        return group[0].refs, group[0].firsts, group[0].lasts
    chain = itertools.chain.from_iterable
    return (
        tuple(chain(job.refs for job in group)),
        tuple(chain(job.firsts for job in group)),
        tuple(chain(job.lasts for job in group)),
    )
