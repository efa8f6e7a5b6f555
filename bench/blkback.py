"""`./build.py bench blkback`: our backend beside Linux blkback and qdisk, under one Linux guest.

Part of `./build.py bench block`. One disk of dom0 is given to the guest by all three, which are
loaded in turn; the disk is a file of the host in its page cache, so what is compared is the way
from the guest to dom0's block device. qdisk, as Debian builds it, goes through dom0's page cache,
which answers a write before the disk has it, and the other two do not. Before each load dom0 writes
back and forgets what it has cached. A line for each load gives the median speed; another one what
dom0 computed for a GiB, all its processes and threads, by Xen's own count.
"""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path

from bench.figure import show
from bench.linuxguest import Done, LinuxGuest, Load, ran
from lab import python
from lab.xen import Xen
from tools.progress import MIB, Display

DISK_MIB = 256
ROUNDS = 3
SECONDS = 1.5
SETTLE_SECONDS = 60
LOG = "/job/log/blkback"
OURS = "ours"
VDEVS = {OURS: "xvdb", "blkback": "xvdc", "qdisk": "xvdd"}
LOADS = (
    Load("sequential write, 1 MiB at depth 32", "write", 1024, 32),
    Load("sequential read, 1 MiB at depth 32", "read", 1024, 32),
    Load("random write, 4 KiB at depth 1", "randwrite", 4, 1),
    Load("random read, 4 KiB at depth 1", "randread", 4, 1),
    Load("random write, 4 KiB at depth 32", "randwrite", 4, 32),
    Load("random read, 4 KiB at depth 32", "randread", 4, 32),
)


class Site:
    """A Xen with a guest that has a disk of dom0 by each of the backends."""

    def __init__(self, xen: Xen, disk: Path, backends: tuple[str, ...]) -> None:
        self._xen = xen
        device = xen.attach(disk)
        theirs = [
            {"vdev": VDEVS[name], "file": str(disk), "backend": name}
            for name in backends
            if name != OURS
        ]
        python.put(xen)
        xen.sh(f"pvdump blkback run >>{LOG} 2>&1 &")
        self._guest = LinuxGuest(xen, "loads", theirs, VDEVS[OURS])
        domid = self._guest.domain.domid
        xen.sh(f"pvdump blkback attach --shared {domid} {VDEVS[OURS]} {device}")
        self._guest.wait()
        self._idle = statistics.median(self._idly() for _ in range(3))

    def load(self, load: Load, backend: str) -> tuple[Done, float]:
        """Run a load. Returns its result and the CPU seconds that dom0 spent on it."""
        self._xen.sh("sync; echo 3 >/proc/sys/vm/drop_caches", SETTLE_SECONDS)
        before = ran(self._xen, 0)
        done = self._guest.load(load, VDEVS[backend], SECONDS)
        return done, ran(self._xen, 0) - before - self._idle

    def _idly(self) -> float:
        """Return the CPU seconds of dom0 that the measurement itself costs."""
        before = ran(self._xen, 0)
        self._guest.run("true")
        return ran(self._xen, 0) - before


def run(progress: Display) -> None:
    """Measure and print a line for each figure."""
    with tempfile.TemporaryDirectory(prefix="pvdump-bench-") as folder:
        disk = Path(folder) / "disk.img"
        # Written once: the first write of a sparse file's block costs the host more.
        disk.write_bytes(bytes(DISK_MIB * MIB))
        with Xen(progress=progress) as xen:
            site = Site(xen, disk, tuple(VDEVS))
            for load in LOADS:
                with progress.stage(load.name, total=ROUNDS, unit="rounds") as stage:
                    rounds: dict[str, list[tuple[Done, float]]] = {name: [] for name in VDEVS}
                    for _ in range(ROUNDS):
                        for name, found in rounds.items():
                            found.append(site.load(load, name))
                        stage.advance()
                tell(load, rounds)


def tell(load: Load, rounds: dict[str, list[tuple[Done, float]]]) -> None:
    """Show the medians of a load."""
    speeds = {name: median_speed(found) for name, found in rounds.items()}
    costs = {name: cost(found) for name, found in rounds.items()}
    for name in list(rounds)[1:]:
        what = f"backend, {load.name}, beside {name}"
        show(what, speeds[OURS], speeds[name], "MiB/s")
        show(f"{what}: CPU of dom0", costs[OURS], costs[name], "s/GiB")


def median_speed(found: list[tuple[Done, float]]) -> float:
    """Return the median of the speeds, MiB/s."""
    return statistics.median(done.speed for done, _ in found)


def cost(found: list[tuple[Done, float]]) -> float:
    """Return the seconds that dom0 computed for a GiB."""
    return sum(busy for _, busy in found) * 1024 / sum(done.mib for done, _ in found)
