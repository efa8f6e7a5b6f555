"""Several images side by side, each in a domain of one embedded Xen.

For scripts that speak with each other: `./build.py run ONE.py TWO.py`.

    together = Together([(image, domain), (image, domain)])
    reasons = together.run()

Each image runs in a thread of its own, but one of them at a time: it has its turn until its domain
waits and nothing is left to do for the others' side. The rule: time passes when all domains wait,
and then as far as the first of them wants; so a run has one order, and a seed repeats it.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

import hw

from .domain import EmbeddedDomain
from .image import EmbeddedImage


class Stopped(BaseException):
    """Another domain's run has failed; this one ends."""


class Together:
    """The runs of some images.

    Args:
        pairs: an image and its domain, all of one toolstack; each image is used once.
    """

    def __init__(self, pairs: Sequence[tuple[EmbeddedImage, EmbeddedDomain]]) -> None:
        self._pairs = pairs
        self._machines = [domain.machine for _, domain in pairs]
        self._clock = self._machines[0].clock
        self._turn = threading.Condition()
        self._whose: int | None = 0
        self._running = list(range(len(pairs)))
        self._reasons: dict[int, int] = {}
        self._failure: BaseException | None = None
        # Until when each domain waits; those that have waited since anything happened.
        self._until = [0] * len(pairs)
        self._asked: set[int] = set()
        self._calls = -1
        self._passes: int | None = None

    def run(self) -> list[int]:
        """Run all domains to their ends.

        Returns:
            the shutdowns' reasons, of SHUTDOWN_*.

        Raises:
            Deadlock, CpuError, NotAnImage: the first that one of them has met.
        """
        threads = [
            threading.Thread(target=self._live, args=(number,), daemon=True)
            for number in self._running
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if self._failure is not None:
            raise self._failure
        return [self._reasons[number] for number in range(len(self._pairs))]

    def _live(self, number: int) -> None:
        """Run one domain; the body of a thread."""
        image, domain = self._pairs[number]
        domain.machine.on_idle = lambda ns: self._idle(number, ns)
        try:
            self._wait(number)
            self._reasons[number] = image.run(domain)
        except Stopped:
            pass
        except BaseException as error:
            self._failure = self._failure or error
        self._running.remove(number)
        self._asked.discard(number)
        self._hand(self._next(number))

    def _idle(self, number: int, ns: int) -> None:
        """Give the others their turns. Returns when time may pass, or something has happened."""
        self._until[number] = self._clock.now + ns
        calls = sum(machine.hypercalls for machine in self._machines)
        if calls != self._calls:
            self._calls = calls
            self._asked.clear()
        self._asked.add(number)
        self._hand(self._next(number))
        self._wait(number)
        if self._passes == number:
            self._passes = None
        else:
            # The machine looks again what it waits for, before time passes.
            self._clock.soon(_nothing)

    def _next(self, number: int) -> int | None:
        """Return whose turn follows: one that has not waited yet, else the first in time."""
        if not self._running:
            return None
        order = sorted(self._running, key=lambda other: (other <= number, other))
        for other in order:
            if other not in self._asked:
                return other
        self._asked.clear()
        self._passes = min(order, key=lambda other: self._until[other])
        return self._passes

    def _hand(self, number: int | None) -> None:
        with self._turn:
            self._whose = number
            self._turn.notify_all()

    def _wait(self, number: int) -> None:
        """Wait for a turn. Raises Stopped."""
        with self._turn:
            self._turn.wait_for(lambda: self._whose == number)
        if self._failure is not None:
            raise Stopped
        hw.attach(self._machines[number])


def _nothing() -> None:
    pass
