"""`./build.py bench neighbours`: the speed of fifteen guests' disks beside a faulty guest's.

The last part of `./build.py bench block`. Sixteen disks of one backend process, with its devices,
its threads and a store of its own as in dom0; each front end is a process on shared memory. Rounds
take turns, each in a process that ends with it: the sixteenth guest behaves as the others do; it
breaks its ring as soon as it is connected, in a loop; its disk is busy and has to be asked again;
its disk hangs. A line has the median over the rounds of what one of the other fifteen gets done
beside that of the rounds in which all behave; another one has how often the sixteenth was logged,
beside the once a second that it may.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from bench.figure import show
from bench.sharedguest import VDEV, Guest, Xen
from pvdump.blkback import ports
from pvdump.blkback.attach import attach
from pvdump.blkback.backendstore import BackendStore
from pvdump.blkback.command import SWITCH_SECONDS
from pvdump.blkback.host import Host
from pvdump.blkback.sink import SECTOR, File, Sink
from pvdump.watches.dispatcher import Dispatcher
from pvdump.xenstore.store import Store
from pvdump.xenstored.server import Xenstored
from pvdump.xenstored.unix import UnixTransport
from tools import Trouble
from tools.progress import MIB, Display

GUESTS = 16
DISK = 16 * MIB
SETTLING_SECONDS = 0.5
SECONDS = 1.5
ROUNDS = 5
ROUND_SECONDS = 60
BEHAVES = "behaves"
CORRUPTS = "corrupts its ring in a loop"
BUSY = "has a busy disk"
HANGS = "has a disk that hangs"
KINDS = (BEHAVES, CORRUPTS, BUSY, HANGS)


class Busy(File):
    """A sink that refuses each write for the moment."""

    def write(self, offset: int, buffers: list[memoryview]) -> None:
        """Raise Stalled."""
        raise ports.Stalled("as asked")


class Hanging(File):
    """A sink whose writes never return."""

    def write(self, offset: int, buffers: list[memoryview]) -> None:
        """Never return."""
        threading.Event().wait()


SINKS: dict[str, type[File]] = {BUSY: Busy, HANGS: Hanging}


def run(progress: Display) -> None:
    """Measure and print a line for each kind of guest."""
    done: dict[str, list[float]] = {kind: [] for kind in KINDS}
    logged: dict[str, list[float]] = {kind: [] for kind in KINDS}
    broken = []
    with progress.stage("neighbours", total=ROUNDS * len(KINDS), unit="rounds") as stage:
        for _ in range(ROUNDS):
            for kind in KINDS:
                found = apart(kind)
                done[kind].append(found["others"])
                logged[kind].append(found["lines"])
                if kind == CORRUPTS:
                    broken.append(found["last"])
                stage.advance()
    peer = statistics.median(done[BEHAVES])
    for kind in KINDS[1:]:
        often = f", {statistics.median(broken):.0f} times a second" if kind == CORRUPTS else ""
        name = f"backend, each of {GUESTS - 1} disks beside one whose guest {kind}{often}"
        show(name, statistics.median(done[kind]), peer, "requests/s")
    for kind in KINDS[1:]:
        show(f"backend, lines logged of a guest that {kind}", max(logged[kind]), 1, "lines/s")


def apart(kind: str) -> dict[str, float]:
    """Do a round in a process that ends with all that it has started."""
    command = [sys.executable, "-m", "bench.neighbours", kind]
    with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as process:
        try:
            said, _ = process.communicate(timeout=ROUND_SECONDS)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    if not said:
        raise Trouble(f"neighbours, {kind}: the round did not come to its end")
    return dict(json.loads(said))


def measure(kind: str, folder: Path) -> dict[str, float]:
    """Measure one guest of the fifteen, the sixteenth, and the lines logged, all a second.

    The processes that it starts go on.
    """
    guests = [Guest(domid, DISK // SECTOR) for domid in range(1, GUESTS + 1)]
    last = guests[-1]
    path = folder / "store"
    fork(lambda: serve(path))
    while not path.exists():
        time.sleep(0.01)
    for guest in guests:
        act = last.corrupt if guest is last and kind == CORRUPTS else guest.behave
        fork(lambda act=act: act(str(path)))  # type: ignore[misc]
    lines = Lines()
    logging.getLogger("pvdump").addHandler(lines)
    sys.setswitchinterval(SWITCH_SECONDS)
    sinks = {str(folder / f"disk{guest.domid}"): File for guest in guests}
    sinks[str(folder / f"disk{last.domid}")] = SINKS.get(kind, File)

    def opened(params: str, readonly: bool, shared: bool) -> Sink:
        return sinks[params](Path(params), readonly, shared)

    with Store(path) as tool, Store(path) as store:
        dispatcher = Dispatcher(store)
        dispatcher.start()
        xen = Xen({guest.domid: guest for guest in guests})
        Host(dispatcher, BackendStore(store), xen, opened)
        for guest, params in zip(guests, sinks, strict=True):
            with Path(params).open("wb") as stream:
                stream.truncate(DISK)
            tool.write(f"/local/domain/{guest.domid}/domid", str(guest.domid))
            tool.call(lambda client, domid=guest.domid: client.introduce(domid, 1, 1))  # type: ignore[misc]
            attach(tool, guest.domid, VDEV, params, False)
        while not all(guest.count for guest in guests[:-1]):
            time.sleep(0.01)
        time.sleep(SETTLING_SECONDS)
        before, said = [guest.count for guest in guests], lines.count
        began = time.monotonic()
        time.sleep(SECONDS)
        took = time.monotonic() - began
        rates = [(guest.count - count) / took for guest, count in zip(guests, before, strict=True)]
        return {
            "others": statistics.median(rates[:-1]),
            "last": rates[-1],
            # The first one begins a second that the next one has to wait for.
            "lines": max(lines.count - said - 1, 0) / took,
        }


class Lines(logging.Handler):
    """Counts what is logged."""

    count = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Count a line."""
        self.count += 1


def serve(path: Path) -> None:
    """Serve the store."""
    with UnixTransport(Xenstored(), path) as unix:
        unix.run()


def fork(work: Callable[[], None]) -> None:
    """Do work in a process of its own."""
    if os.fork() == 0:
        # The reader of the round's output must not wait for this process to end.
        os.close(sys.stdout.fileno())
        try:
            work()
        finally:
            os._exit(1)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        print(json.dumps(measure(sys.argv[1], Path(folder))), flush=True)
        # Threads that serve a disk that hangs would be waited for.
    os._exit(0)
