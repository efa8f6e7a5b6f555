"""`./build.py bench block`: our front end's streams beside Linux blkfront's, on the same backends.

In one Xen, for each backend: the image writes and reads a disk, once with all that the backend
offers and once without each feature; then Linux does so in a guest of its own with `dd bs=1M` past
its page cache. A line says which part of the features a figure has; ratios of the lines without a
feature are beside ours with all, so what a feature brought is their reciprocal. The last lines: how
long our front end computes for a MiB, and what the heap gained over 10 GiB.
"""

from __future__ import annotations

import itertools
import json
import re
import tempfile
from pathlib import Path

from lab import linux
from lab.guest import Guest
from lab.xen import Xen
from tools import Trouble, image
from tools.progress import MIB, Display

HERE = Path(__file__).resolve().parent
BACKENDS = ("blkback", "qdisk")
DISK_MIB = 256
SECONDS = 900
# Ring pages, requests in flight, segments of a request, requests' worth of buffers of our own.
ALL = (4, 512, 256, 0)
LESS = {
    "one ring page": (1, 512, 256, 0),
    "no indirect segments": (4, 512, 11, 0),
    "one ring page, no indirect segments": (1, 512, 11, 0),
    "one request in flight": (4, 1, 256, 0),
    "buffers, persistent where offered": (4, 512, 256, 8),
}
NUMBERS = itertools.count(1)
Figures = dict[str, tuple[float, float]]  # of an operation: MiB/s, us of the front end a MiB


def run(progress: Display) -> None:
    """Measure and print a line for each figure."""
    with tempfile.TemporaryDirectory(prefix="pvdump-bench-") as folder:
        built = image.build(Path(folder), config=HERE / "guest/blocks.yaml", progress=progress)
        disk = Path(folder) / "disk.img"
        with disk.open("wb") as stream:
            stream.truncate(DISK_MIB * MIB)
        with Xen(progress=progress) as xen:
            for backend in BACKENDS:
                with progress.stage(backend):
                    measure(xen, backend, built.elf, disk)


def measure(xen: Xen, backend: str, elf: Path, disk: Path) -> None:
    peer = in_linux(xen, backend, disk)
    best, _ = in_image(xen, backend, elf, disk, ALL)
    for op, (speed, _) in best.items():
        show(f"block {backend} {op}, beside Linux", speed, peer[op], "MiB/s")
    for name, features in LESS.items():
        found, said = in_image(xen, backend, elf, disk, features)
        kept = " (kept)" if "persistent 1" in said else ""
        for op, (speed, _) in found.items():
            show(f"block {backend} {op}, {name}{kept}, beside all", speed, best[op][0], "MiB/s")
    for op, (speed, busy) in best.items():
        show(f"block {backend} {op}, time of a MiB beside the front end's", busy, 1e6 / speed, "us")
    if backend == BACKENDS[0]:
        _, said = in_image(xen, backend, elf, disk, ALL, long=True)
        (_, before), (mib, after) = re.findall(r"heap (\d+)\|(\d+)", said)
        show(f"block heap after {mib} MiB, beside before", int(after), int(before), "bytes")


def show(name: str, ours: float, peer: float, unit: str) -> None:
    """Bytes and us are better small, MiB/s large."""
    ratio = ours / peer if unit == "MiB/s" else peer / ours
    figures = {"ours": round(ours, 1), "peer": round(peer, 1), "unit": unit}
    print(json.dumps({"name": name, **figures, "ratio": round(ratio, 2)}), flush=True)


def in_image(
    xen: Xen, backend: str, elf: Path, disk: Path, features: tuple[int, ...], long: bool = False
) -> tuple[Figures, str]:
    """What the image tells of its streams, and all that it said."""
    domain = xen.create(
        Guest.parse(
            {
                "name": f"blocks{next(NUMBERS)}",
                "type": "pvh",
                "kernel": str(elf),
                "memory": 96,
                "cmdline": " ".join(map(str, (*features, int(long)))),
                "disks": [{"vdev": "xvdb", "file": str(disk), "backend": backend}],
            }
        )
    )
    domain.wait_end(SECONDS)
    said = domain.console()
    if "bench done" not in said:
        raise Trouble(f"{backend}: the image did not come to its end:\n{said[-2000:]}")
    found = {}
    for op, mib, took, busy in re.findall(r"bench (\w+)\|(\d+)\|(\d+)\|(\d+)", said):
        found[op] = (int(mib) * 1e9 / int(took), int(busy) / 1000 / int(mib))
    return found, said


def in_linux(xen: Xen, backend: str, disk: Path) -> dict[str, float]:
    """MiB/s of dd in a Linux guest."""
    lines = [linux.disk_speed("xvdb", op, DISK_MIB) for op in ("write", "read")]
    guest = Guest.load(
        HERE.parent / "lab/guests/linux-dd.yaml",
        name=f"linux-{backend}",
        run="\n".join(lines),
        disks=[{"vdev": "xvdb", "file": str(disk), "backend": backend}],
    )
    domain = xen.boot(guest)
    domain.wait_end(SECONDS)
    found = re.findall(r"lab: dd xvdb (\w+) (\d+) MiB ([\d.]+) s", domain.console())
    return {op: int(mib) / float(took) for op, mib, took in found}
