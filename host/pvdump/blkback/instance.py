"""The worker of one connected front end: it takes requests, does them and answers.

A device makes it at connect; a thread (dom0.py) or a clock (pvxen/blkback.py) calls step() when
what it waits for has come. The rules:
- The worker alone changes its state; others only wake it or ask it to leave.
- A step does at most one ring's worth, so that other workers get their turn. When memory or the
  disk stalls, only this worker waits, and its requests stay in order.
- Requests that continue each other on the disk become one vectored read or write on the guest's
  memory. Where the disk takes many at a time they run beside each other, but a flush, barrier or
  discard runs alone.
- Answers are given in the order of the requests, so that the next backend goes on with the first
  unanswered one if this process ends.
States and rules are those of NetBSD's xbdback since its rework of 2011.
Source: NetBSD sys/arch/xen/xen/xbdback_xenbus.c, for its behaviour.
"""

from __future__ import annotations

import enum
import errno
import struct
from collections import deque
from collections.abc import Callable
from operator import attrgetter

from xenpv.block.blkif import RESPONSE, SECTOR, Request
from xenpv.errors import RingCorrupt

from . import request, transfer
from .counts import Counts
from .ports import Refused, Stalled, Wait
from .request import DISCARD, EOPNOTSUPP, ERROR, OKAY, READ, WRITE, BadRequest, Job
from .resources import Resources
from .sink import Sink
from .transfer import JOINED, Transfer

MOVES = (READ, WRITE)
LINGER_STEPS = 10  # of 10 ms each
UNABLE = (errno.EOPNOTSUPP, errno.ENOTTY)  # of a file or disk that cannot discard
Complain = Callable[[str], None]


class State(enum.Enum):
    """A worker's state, as `pvdump blkback show` prints it."""

    WAITING = "waiting"
    RUN = "run"
    DISCONNECTING = "disconnecting"
    DISCONNECTED = "disconnected"


class Instance:
    """Serves one connection's ring.

    most: requests that are taken and not answered, at most; complain: called with what the guest
    does wrong; ended: called once, by the worker, at its end.
    """

    def __init__(
        self,
        name: str,
        resources: Resources,
        sink: Sink,
        geometry: request.Geometry,
        most: int,
        counts: Counts,
        complain: Complain,
        ended: Callable[[], None],
    ) -> None:
        self.name = name
        self.state = State.WAITING
        self.fault = ""  # why the connection was ended, e.g. how the ring is corrupt
        self.wake: Callable[[], None] = lambda: None
        self._resources = resources
        self._ring = resources.ring
        self._sink = sink
        self._geometry = geometry
        self._most = most
        self._counts = counts
        self._complain = complain
        self._ended = ended
        self._leaving = False
        self._finishing = False
        self._linger = 0  # steps to wait for more requests while finishing
        self._entry: bytes | None = None  # taken from the ring, not yet a job
        self._jobs: deque[Job] = deque()  # not answered, in the order of the ring
        self._waiting: deque[Job] = deque()  # those of them that are not begun
        self._number = 0
        self._flying = 0  # transfers that the queue has begun
        self._stalled = False  # in this step
        # The last backend may have ended between an answer and its event.
        resources.channel.notify()

    def disconnect(self) -> None:
        """Ask the worker to leave: it ends what is under way and begins nothing more."""
        self._leaving = True
        self.wake()

    def finish(self) -> None:
        """Ask the worker to leave when the ring's requests are answered, or the disk stalls.

        Linux closes with requests under way and waits for them for ever; requests that it held
        back come a moment after the answers to the others.
        """
        self._finishing = True
        self.wake()

    def fail(self, why: str) -> None:
        """End the connection at the next step, for a reason. Called where step() is called."""
        self.fault = why
        self._leaving = True

    def abandon(self) -> None:
        """Give everything back without a step: nobody can give the worker its turns."""
        self._resources.close()
        self.state = State.DISCONNECTED

    @property
    def gone(self) -> bool:
        """Return whether the worker has left and everything was given back."""
        return self.state is State.DISCONNECTED

    def step(self) -> Wait:
        """Do at most one ring's worth. Returns what the next step waits for."""
        if self.state is State.DISCONNECTED:
            return Wait.END
        self._stalled = False
        more, before = False, self._number
        try:
            if self._flying:
                self._collect()
            if not self._leaving:
                self.state = State.RUN
                self._fetch()
                if self._waiting:
                    self._begin()
                if self._jobs:
                    self._answer()
                more = self._ring.rearm()
        except RingCorrupt as error:
            self.fail(str(error))
        if self._finishing and not self._leaving:
            self._leaving = self._finished(more or self._number != before or bool(self._jobs))
        if self._leaving:
            return self._disconnect()
        if self._finishing:
            return Wait.LATER
        if more and not self._stalled and len(self._jobs) < self._most:
            return Wait.NOTHING
        self.state = State.WAITING
        if self._stalled:
            self._counts.stalls += 1
            return Wait.LATER
        return Wait.IO if self._flying else Wait.EVENT

    def _finished(self, busy: bool) -> bool:
        self._linger = LINGER_STEPS if busy else self._linger - 1
        return self._stalled or self._linger < 0

    def _disconnect(self) -> Wait:
        self.state = State.DISCONNECTING
        if self._flying:
            return Wait.IO
        self._resources.close()
        self.state = State.DISCONNECTED
        self._ended()
        return Wait.END

    # Parse.

    def _fetch(self) -> None:
        """Take the ring's requests, never more than fit in it: an answer makes room for one.

        Raises: RingCorrupt.
        """
        ring, more = self._ring, True
        room = self._most - len(self._jobs)
        while more and room > 0:
            if self._entry is None:
                self._entry = ring.take()
            if self._entry is None:
                break
            parsed = self._resources.layout.parse(self._entry)
            try:
                job = self._judge(parsed)
                self._number += 1
                job.number = self._number
                self._waiting.append(job)
            except Stalled:
                self._stalled = True
                return
            except (BadRequest, Refused) as error:
                self._counts.errors += 1
                self._complain(str(error))
                status = error.status if isinstance(error, BadRequest) else ERROR
                job = Job(parsed.id, parsed.op, 0, 0, status=status)
            self._jobs.append(job)
            room -= 1
            self._entry = None
            more = ring.unread > 0

    def _judge(self, parsed: Request) -> Job:
        request.check_kind(parsed, self._geometry)
        data = parsed.data
        if parsed.is_indirect:
            # All segments that it may announce fit in one page.
            (page,), spare = self._resources.pool.take(parsed.grefs[:1], False)
            data = bytes(page[: request.SEGMENT_SIZE * parsed.count])
            if spare is not None:
                spare.unmap()
        return request.job(parsed, data, self._geometry)

    # Map and I/O.

    def _next(self) -> list[Job]:
        """Take the first waiting jobs that make one read or write."""
        first = self._waiting.popleft()
        group = [first]
        end, frames = first.sector + first.count, len(first.refs)
        while self._waiting and not first.alone:
            job = self._waiting[0]
            frames += len(job.refs)
            if job.op != first.op or job.sector != end or frames > JOINED or job.alone:
                break
            group.append(self._waiting.popleft())
            end += job.count
        return group

    def _begin(self) -> None:
        """Begin as many jobs as possible."""
        queue = self._resources.queue
        while self._waiting and not self._stalled and not self._leaving:
            if self._waiting[0].op in MOVES:
                room = queue.depth - self._flying if queue else 1
                if not room:
                    break
                self._move(self._transfers(room))
            elif self._flying:
                break
            else:
                self._do_alone(self._waiting.popleft())
            self._answer()

    def _transfers(self, most: int) -> list[Transfer]:
        """Prepare up to `most` of the reads and writes that wait first."""
        found: list[Transfer] = []
        while self._waiting and self._waiting[0].op in MOVES and len(found) < most:
            jobs = self._next() if len(self._waiting) > 1 else [self._waiting.popleft()]
            try:
                found.append(transfer.prepare(jobs, self._sink, self._resources.pool))
            except (Refused, Stalled) as error:
                self._failed(jobs, error)
                if self._stalled:
                    break
        return found

    def _move(self, transfers: list[Transfer]) -> None:
        """Do a single transfer here, which costs less; let the queue begin several."""
        queue = self._resources.queue
        while transfers:
            if queue is not None and (self._flying or len(transfers) > 1):
                begun = queue.begin(transfers)
                self._flying += begun
                transfers = transfers[begun:]
            for move in transfers[:1]:
                move.do()
                self._settle(move)
            transfers = transfers[1:]

    def _collect(self) -> None:
        """Settle and answer the transfers that have ended."""
        assert self._resources.queue is not None
        ended = self._resources.queue.over()
        self._flying -= len(ended)
        for move in ended:
            self._settle(move)
        self._answer()

    def _settle(self, move: Transfer) -> None:
        counts, jobs = self._counts, move.jobs
        counts.ios += 1
        counts.joined += len(jobs) > 1
        try:
            move.end()
        except (OSError, Stalled) as error:
            self._failed(jobs, error)
        else:
            for job in jobs:
                job.status = OKAY
            counts.add(jobs[0].op, move.size, OKAY, len(jobs))

    def _do_alone(self, job: Job) -> None:
        """Do a flush, barrier or discard. Errors of I/O are the job's."""
        try:
            if job.op == DISCARD:
                self._sink.discard(job.sector * SECTOR, job.count * SECTOR)
            else:
                self._sink.flush()
            if job.refs:
                move = transfer.prepare([job], self._sink, self._resources.pool)
                move.do()
                move.end()
                self._sink.flush()
        except (Refused, OSError, Stalled) as error:
            self._failed([job], error)
        else:
            self._done(job, OKAY)

    # Reply.

    def _failed(self, jobs: list[Job], error: Refused | OSError | Stalled) -> None:
        if isinstance(error, Stalled) or len(jobs) > 1:
            # Joined jobs are done again one by one, so that none fails because of another.
            for job in jobs:
                job.alone = job.alone or not isinstance(error, Stalled)
            again = sorted([*jobs, *self._waiting], key=attrgetter("number"))
            self._waiting = deque(again)
            self._stalled = self._stalled or isinstance(error, Stalled)
            return
        (job,) = jobs
        if job.op == DISCARD and isinstance(error, OSError) and error.errno in UNABLE:
            self._done(job, EOPNOTSUPP)
            return
        self._counts.errors += 1
        self._complain(f"{job}: {error}")
        self._done(job, ERROR)

    def _done(self, job: Job, status: int) -> None:
        job.status = status
        self._counts.add(job.op, job.count * SECTOR, status)

    def _answer(self) -> None:
        """Answer the first requests that are done."""
        jobs, ring, some = self._jobs, self._ring, False
        while jobs and jobs[0].status is not None:
            job, some = jobs.popleft(), True
            ring.respond(struct.pack(RESPONSE, job.id, job.op, job.status))
        if some and ring.push():
            self._resources.channel.notify()
