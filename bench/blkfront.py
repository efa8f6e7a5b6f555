"""Our front end's streams beside Linux blkfront's, on the same backends in one Xen.

The first part of `./build.py bench block`. Rounds take turns: the image goes over a disk with all
that the backend offers and once without each feature, then Linux does so over a disk of its own, by
`dd bs=1M` and by fio at depth 32. Every stream ends with a flush; the figures are medians. Then
what our front end's vCPU ran for a MiB, by Xen's own count, and what the heap gained over 10 GiB.
"""

from __future__ import annotations

import itertools
import re
import statistics
import tempfile
from collections import defaultdict
from pathlib import Path

from bench.figure import show
from bench.linuxguest import NATIVE, LinuxGuest, Load
from lab.guest import Guest
from lab.xen import Xen
from tools import Trouble, image
from tools.progress import MIB, Display

HERE = Path(__file__).resolve().parent
BACKENDS = ("blkback", "qdisk")
ROUNDS = 3
STREAM_MS = 800
DD_MIB = 64
FIO_SECONDS = 1
DISK_MIB = 256
HEAP_MIB = 10240
SECONDS = 300
ALL = "all"
# Ring pages, requests in flight, segments of a request, requests' worth of buffers of our own.
FEATURES = {
    ALL: (4, 128, 256, 0),
    "one ring page": (1, 128, 256, 0),
    "no indirect segments": (4, 128, 11, 0),
    "one ring page, no indirect segments": (1, 128, 11, 0),
    "one request in flight": (4, 1, 256, 0),
    "buffers, persistent where offered": (4, 128, 256, 8),
}
LOADS = [Load(op, op, 1024, 32) for op in ("write", "read")]
NUMBERS = itertools.count(1)
# The figures of all rounds, by operation and features, such as ("write", "all").
Figures = dict[tuple[str, str], list[float]]


def run(progress: Display) -> None:
    """Measure and print a line for each figure."""
    with tempfile.TemporaryDirectory(prefix="pvdump-bench-") as name:
        folder = Path(name)
        built = image.build(folder, config=HERE / "guest/blocks.yaml", progress=progress)
        with Xen(progress=progress) as xen:
            for backend in BACKENDS:
                with progress.stage(backend, total=ROUNDS, unit="rounds") as stage:
                    rounds = Rounds(xen, backend, built.elf, folder)
                    for _ in range(ROUNDS):
                        rounds.go()
                        stage.advance()
                    rounds.tell()
            with progress.stage(f"{HEAP_MIB} MiB"):
                heap(xen, built.elf, folder / f"{BACKENDS[0]}-image.img")


class Rounds:
    """Measure the image and a Linux guest in turn, each with a disk of the same backend."""

    def __init__(self, xen: Xen, backend: str, elf: Path, folder: Path) -> None:
        self._xen, self._backend, self._elf = xen, backend, elf
        self._disk = folder / f"{backend}-image.img"
        theirs = folder / f"{backend}-linux.img"
        for path in (self._disk, theirs):
            path.write_bytes(bytes(DISK_MIB * MIB))
        disk = {"vdev": "xvdb", "file": str(theirs), "backend": backend}
        self._linux = LinuxGuest(xen, f"linux-{backend}", [disk], "xvdb")
        self._linux.wait()
        self._speeds: Figures = defaultdict(list)  # MiB/s
        self._times: Figures = defaultdict(list)  # us that a vCPU ran for a MiB
        self._kept: set[str] = set()

    def go(self) -> None:
        """Do a round with both."""
        # The first streams do not count: a disk that was just opened is in nobody's cache.
        names = [ALL, *FEATURES]
        said = in_image(self._xen, self._backend, self._elf, self._disk, names)
        pattern = r"bench (\d+)\|(\w+)\|(\d)\|(\d+)\|(\d+)\|(\d+)"
        for number, op, kept, size, took, busy in re.findall(pattern, said):
            if number == "0":
                continue
            key = op, names[int(number)]
            mib = int(size) / MIB
            self._speeds[key].append(mib * 1e9 / int(took))
            self._times[key].append(int(busy) / 1e3 / mib)
            if int(kept):
                self._kept.add(names[int(number)])
        for load in LOADS:
            before = self._linux.ran()
            done = self._linux.dd(load.op, "xvdb", DD_MIB)
            self._times[load.op, "dd"].append((self._linux.ran() - before) * 1e6 / done.mib)
            self._speeds[load.op, "dd"].append(done.speed)
            done = self._linux.load(load, "xvdb", FIO_SECONDS)
            self._speeds[load.op, "fio at depth 32"].append(done.speed)

    def tell(self) -> None:
        """End the Linux guest and show the medians of this backend."""
        self._linux.domain.destroy()
        speeds = {key: statistics.median(found) for key, found in self._speeds.items()}
        times = {key: statistics.median(found) for key, found in self._times.items()}
        name = f"front end, {self._backend}"
        for op in ("write", "read"):
            for peer in ("dd", "fio at depth 32"):
                what = f"{name}, {op}, beside Linux' {peer}"
                show(what, speeds[op, ALL], speeds[op, peer], "MiB/s")
        for features in list(FEATURES)[1:]:
            kept = " (kept)" if features in self._kept else ""
            for op in ("write", "read"):
                what = f"{name}, {op}, {features}{kept}, beside {ALL}"
                show(what, speeds[op, features], speeds[op, ALL], "MiB/s")
        for op in ("write", "read"):
            what = f"{name}, {op}, CPU of the guest, beside Linux' dd"
            show(what, times[op, ALL], times[op, "dd"], "us/MiB")


def heap(xen: Xen, elf: Path, disk: Path) -> None:
    """Show the front end's memory before and after HEAP_MIB MiB more were written."""
    said = in_image(xen, BACKENDS[0], elf, disk, [ALL], HEAP_MIB)
    (_, before), (mib, after) = re.findall(r"heap (\d+)\|(\d+)", said)
    show(f"front end, heap after {mib} MiB, beside before", int(after), int(before), "bytes")


def in_image(
    xen: Xen, backend: str, elf: Path, disk: Path, features: list[str], more: int = 0
) -> str:
    """Return the console of the image that streams with these features, then `more` MiB."""
    words = [",".join(map(str, FEATURES[name])) for name in features]
    domain = xen.create(
        Guest.parse(
            {
                "name": f"blocks{next(NUMBERS)}",
                "type": "pvh",
                "kernel": str(elf),
                "memory": 96,
                "cmdline": " ".join([str(STREAM_MS), str(more), *words]),
                "disks": [{"vdev": "xvdb", "file": str(disk), "backend": backend}],
                "extra": NATIVE,
            }
        )
    )
    domain.wait_end(SECONDS)
    said = domain.console()
    if "bench done" not in said:
        raise Trouble(f"{backend}: the image did not come to its end:\n{said[-2000:]}")
    return said
