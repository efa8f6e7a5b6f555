"""`./build.py bench watches`: the delay of other domains' events by a stalled handler.

1,000 domains, events for one drawn at random at a steady rate, and the 99th percentile of the time
from an event's coming to its handler's end, of all domains but the one that may stall. Three lines:
one handler stalled for ever beside none stalled; the same beside a serial dispatcher, which is ours
with one queue for all, where the stall has to be bounded for it to end at all; and, for the price
of threads, ours and the serial one without a stall. The two of a line get their events in turn, so
that other work of the machine disturbs both alike; the line is the round with the median
ratio.
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
EVENTS = 1000  # a round, for each of two dispatchers
RATE = 4000  # events a second, for both together
ROUNDS = 15
STALL = 0.25  # seconds that the serial dispatcher's handler stalls; half of a round
STALLED = 0  # the domain whose handler it is

Tell = Callable[[str, str], None]


class Source:
    """A store whose events the benchmark fires itself."""

    tell: Tell

    def watch(self, path: str, tell: Tell) -> Source:
        """Keep the function that events of /data go to."""
        if path == "/data":
            self.tell = tell
        return self

    def directory(self, path: str, default: list[str] | None = None) -> list[str]:
        """Return no children."""
        return []

    def find(self, path: str) -> bytes:
        """Return an empty value for each node."""
        return b""

    def close(self) -> None:
        """Do nothing."""


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
        self._waited = 0
        self._dispatcher = Dispatcher(self._source, limit=EVENTS)
        self._dispatcher.subscribe("/data", self._domain_of, self._handle, "load")
        if stall and not serial:
            self.fire(STALLED)
            self._inside.wait()

    def close(self) -> None:
        """Let the stalled handler go and end the dispatcher."""
        self._gate.set()
        self._dispatcher.close()

    def begin(self) -> None:
        """Begin a round."""
        self._began, self._took, self._waited = [], [], 0
        if self._stall and self._serial:
            self._gate.clear()
            self._inside.clear()
            self.fire(STALLED)
            self._inside.wait()
            threading.Timer(STALL, self._gate.set).start()

    def fire(self, domid: int) -> None:
        """Send an event of a domain."""
        self._waited += domid != STALLED
        self._began.append(time.perf_counter())
        self._source.tell(f"/data/{domid}/{len(self._began) - 1}", "token")

    def end(self) -> float:
        """Wait until all is handled. Returns the round's p99 in us."""
        for _ in range(self._waited):
            self._done.acquire()
        return statistics.quantiles(self._took, n=100)[98] * 1e6

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
    stalled = "watches p99, one stalled for ever"
    compare(progress, f"{stalled}, beside none stalled", Load(False, True), Load(False, False))
    compare(progress, f"{stalled}, beside serial {STALL} s", Load(False, True), Load(True, True))
    none = "watches p99, none stalled"
    compare(progress, f"{none}, beside serial", Load(False, False), Load(True, False))


def compare(progress: Display, name: str, ours: Load, peer: Load) -> None:
    """Show two loads beside each other, and close them."""
    draw = random.Random(1)
    rounds = []
    with progress.stage(name, total=ROUNDS, unit="rounds") as stage:
        try:
            for _ in range(ROUNDS):
                rounds.append(together(ours, peer, draw))
                stage.advance()
        finally:
            ours.close()
            peer.close()
    rounds.sort(key=lambda pair: pair[1] / pair[0])
    mine, other = rounds[len(rounds) // 2]
    line = {"name": name, "ours": round(mine, 1), "peer": round(other, 1), "unit": "us"}
    print(json.dumps({**line, "ratio": round(other / mine, 2)}), flush=True)


def together(ours: Load, peer: Load, draw: random.Random) -> tuple[float, float]:
    """Do a round of both. Returns the p99 of each in us."""
    ours.begin()
    peer.begin()
    start = time.perf_counter()
    for number in range(EVENTS):
        domid = draw.randrange(DOMAINS)
        for turn, load in enumerate((ours, peer) if number % 2 else (peer, ours)):
            ahead = start + (2 * number + turn) / RATE - time.perf_counter()
            if ahead > 0:
                time.sleep(ahead)
            load.fire(domid)
    return ours.end(), peer.end()
