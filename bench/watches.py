"""`./build.py bench watches`: what a stalled handler costs the other domains.

1,000 domains, events for one drawn at random at a steady rate, and the 99th percentile of the time
from an event's coming to its handler's end, of all domains but the one that may stall. Three lines:
one handler stalled for ever beside none stalled; the same beside a serial dispatcher, which is ours
with one queue for all, where the stall has to be bounded for it to end at all; and, for the price
of threads, ours and the serial one without a stall. Rounds of all are interleaved, each starts from
an idle dispatcher, and a line is the round with the median ratio, so that a busy machine disturbs
all alike.
"""

from __future__ import annotations

import json
import random
import statistics
import threading
import time
from collections.abc import Callable

from pvdump.watches.dispatcher import Dispatcher
from pvdump.watches.queue import Event
from tools.progress import Display

DOMAINS = 1000
EVENTS = 2000  # a round
RATE = 4000  # events a second
ROUNDS = 15
STALL = 0.25  # seconds that the serial dispatcher's handler stalls; half of a round
STALLED = 0  # the domain whose handler it is

Tell = Callable[[str, str], None]


class Source:
    """The store's place: events come from here."""

    tell: Tell

    def watch(self, path: str, tell: Tell) -> Source:
        if path == "/data":
            self.tell = tell
        return self

    def directory(self, path: str) -> list[str]:
        return []

    def read(self, path: str) -> bytes:
        return b""

    def close(self) -> None:
        pass


class Load:
    """A dispatcher and its rounds. serial: one queue for all; stall: whether a handler stalls."""

    def __init__(self, serial: bool, stall: bool) -> None:
        self._source = Source()
        self._serial = serial
        self._stall = stall
        self._gate = threading.Event()
        self._inside = threading.Event()
        self._done = threading.Semaphore(0)
        self._began: list[float] = []
        self._took: list[float] = []
        self._random = random.Random(1)
        self._dispatcher = Dispatcher(self._source, limit=EVENTS)
        self._dispatcher.subscribe("/data", self._domain_of, self._handle, "load")
        if stall and not serial:
            self._fire(STALLED)
            self._inside.wait()

    def close(self) -> None:
        self._gate.set()
        self._dispatcher.close()

    def round(self) -> float:
        """p99 in us."""
        self._began, self._took = [], []
        if self._stall and self._serial:
            self._gate.clear()
            self._inside.clear()
            self._fire(STALLED)
            self._inside.wait()
            threading.Timer(STALL, self._gate.set).start()
        waited = 0
        start = time.perf_counter()
        for number in range(EVENTS):
            ahead = start + number / RATE - time.perf_counter()
            if ahead > 0:
                time.sleep(ahead)
            domid = self._random.randrange(DOMAINS)
            waited += domid != STALLED
            self._fire(domid)
        for _ in range(waited):
            self._done.acquire()
        return statistics.quantiles(self._took, n=100)[98] * 1e6

    def _fire(self, domid: int) -> None:
        self._began.append(time.perf_counter())
        self._source.tell(f"/data/{domid}/{len(self._began) - 1}", "token")

    def _domain_of(self, path: str, token: str) -> int | None:
        return None if self._serial else int(path.split("/")[2])

    def _handle(self, event: Event) -> None:
        _, _, domid, number = event.path.split("/")
        if int(domid) != STALLED:
            self._took.append(time.perf_counter() - self._began[int(number)])
            self._done.release()
        elif self._stall:
            self._inside.set()
            self._gate.wait()


def run(progress: Display) -> None:
    """Measure and print a line for each comparison."""
    loads = {
        (serial, stall): Load(serial, stall) for serial in (False, True) for stall in (False, True)
    }
    took: dict[tuple[bool, bool], list[float]] = {kind: [] for kind in loads}
    try:
        with progress.stage("watches", total=ROUNDS, unit="rounds") as stage:
            for number in range(ROUNDS):
                kinds = list(loads)
                for kind in kinds if number % 2 else kinds[::-1]:
                    took[kind].append(loads[kind].round())
                stage.advance()
    finally:
        for load in loads.values():
            load.close()
    ours = {stall: took[False, stall] for stall in (False, True)}
    serial = {stall: took[True, stall] for stall in (False, True)}
    say("watches p99, one stalled for ever beside none stalled", ours[True], ours[False])
    say(f"watches p99, one stalled, beside serial ({STALL} s)", ours[True], serial[True])
    say("watches p99, none stalled, beside serial", ours[False], serial[False])


def say(name: str, ours: list[float], peer: list[float]) -> None:
    """One line: the round with the median ratio of the two, which ran side by side in it."""
    rounds = sorted(zip(ours, peer, strict=True), key=lambda pair: pair[1] / pair[0])
    mine, other = rounds[len(rounds) // 2]
    line = {"name": name, "ours": round(mine, 1), "peer": round(other, 1), "unit": "us"}
    print(json.dumps({**line, "ratio": round(other / mine, 2)}), flush=True)
