"""Virtual time, and the work of all but the guest.

Used by the machine and by its other side (store, backends). The other side is made of steps:
callables that read the state of rings and nodes and do the work that is due. A step that is asked
for twice before it runs runs once, as with an event channel. The rule: nothing here reads a real
clock or a global random source, so a seed repeats a run. With seed 0 steps run in the order in
which they were asked for; with another seed the order is random.
"""

from __future__ import annotations

import heapq
import itertools
import random
import struct
from collections import deque
from collections.abc import Callable

SECOND = 1_000_000_000  # ns
Step = Callable[[], None]
Timer = tuple[int, int, Step]  # when, how many were set before it, what then
TIME_INFO = "<IIQQIbB2x"  # struct vcpu_time_info of Xen public/xen.h
TIME_INFO_SIZE = struct.calcsize(TIME_INFO)

STEPS = 100_000  # that may run while time stands still


class Livelock(BaseException):
    """The other side never stops working, and time stands still."""


# The seeds of the clocks made last, for the report of a test that fails.
recent: deque[int] = deque(maxlen=8)


class Clock:
    """The time of one Xen, in ns, and the steps and timers of its other side.

    Args:
        seed: of all that is random; 0: steps run in order.
        now: the time at the start, ns.
    """

    def __init__(self, seed: int, now: int) -> None:
        recent.append(seed)
        self.seed = seed
        self.random = random.Random(seed)
        self.now = now
        self._ready: list[Step] = []
        self._timers: list[Timer] = []
        self._count = itertools.count()
        self._steps = 0
        self._stood_at = now

    def time_info(self, ahead: int = 0) -> bytes:
        """Pack the time as Xen writes it for a vCPU, at a rate of nearly 0 per TSC tick.

        ahead: what the host's system time is ahead of this clock, ns.
        """
        return struct.pack(TIME_INFO, 0, 0, 0, self.now + ahead, 1, -31, 0)

    def soon(self, step: Step) -> None:
        """Run `step` at the next turn of the other side, once even if it is asked for twice."""
        if step not in self._ready:
            self._ready.append(step)

    def at(self, when: int, step: Step) -> Timer:
        """Run `step` at `when` (ns). Returns a handle for cancel()."""
        timer = (when, next(self._count), step)
        heapq.heappush(self._timers, timer)
        return timer

    def after(self, delay: int, step: Step) -> Timer:
        """Run `step` `delay` ns from now. Returns a handle for cancel()."""
        return self.at(self.now + delay, step)

    def cancel(self, timer: Timer) -> None:
        """Remove a timer if it has not run yet."""
        if timer in self._timers:
            self._timers.remove(timer)
            heapq.heapify(self._timers)

    def run_one(self) -> bool:
        """Run one step that is ready. Returns False when there is none."""
        if not self._ready:
            return False
        self._steps = self._steps + 1 if self.now == self._stood_at else 1
        self._stood_at = self.now
        if self._steps > STEPS:
            raise Livelock(f"{STEPS} steps of the other side, and time stands still: {self._ready}")
        which = self.random.randrange(len(self._ready)) if self.seed else 0
        self._ready.pop(which)()
        return True

    def idle(self) -> None:
        """Run steps until none is ready."""
        while self.run_one():
            pass

    def next(self) -> int | None:
        """Return the time of the next timer (ns), None when there is none."""
        return self._timers[0][0] if self._timers else None

    def advance(self, when: int) -> None:
        """Let time pass until `when` (ns); timers that come due do their work at their own time."""
        while self._timers and self._timers[0][0] <= when:
            due, _, step = heapq.heappop(self._timers)
            self.now = max(self.now, due)
            step()
        self.now = max(self.now, when)
