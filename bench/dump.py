"""`./build.py bench dump`: how fast a dump is written, beside Linux's own direct write.

In one guest on one Xen, for each block backend: Linux writes a disk with `dd oflag=direct bs=1M`,
then it panics and pvdump writes its memory to a second disk of the same kind. The figures are the
guest's own: dd's by its uptime, pvdump's by Xen's clock, from the first request to the last FLUSH.
"""

from __future__ import annotations

import json
import re
import tempfile
from pathlib import Path

from lab import linux
from lab.guest import Guest
from lab.xen import Xen
from pvdump.dump.prepare import prepare
from tools import Trouble, image
from tools.progress import MIB, Display

ROOT = Path(__file__).resolve().parent.parent
GUEST = ROOT / "lab/guests/linux-crash.yaml"
BACKENDS = ("blkback", "qdisk")
DISK_MIB = 512
DD_MIB = 367  # about what the guest of 384 MiB dumps
SECONDS = 600


def run(progress: Display) -> None:
    """Measure on each backend and print a line for each."""
    image.build(ROOT / "out", progress=progress)
    with (
        tempfile.TemporaryDirectory(prefix="pvdump-bench-") as folder,
        Xen(progress=progress) as xen,
    ):
        for backend in BACKENDS:
            with progress.stage(backend):
                ours, peer = measure(xen, backend, Path(folder))
            line = {"name": f"dump {backend}", "ours": ours, "peer": peer, "unit": "MiB/s"}
            print(json.dumps({**line, "ratio": round(ours / peer, 2)}), flush=True)


def measure(xen: Xen, backend: str, folder: Path) -> tuple[float, float]:
    """Return the MiB/s of pvdump and of dd in one guest."""
    target, scratch = folder / f"{backend}-target.img", folder / f"{backend}-scratch.img"
    prepare(target, size=DISK_MIB * MIB)
    with scratch.open("wb") as stream:
        stream.truncate(DISK_MIB * MIB)
    load = linux.kexec("/pvdump.bin", "pvdump.disk=xvdb pvdump.then=poweroff", file_mode=True)
    guest = Guest.load(
        GUEST,
        name=f"bench-{backend}",
        run=f"{load}\n{linux.disk_speed('xvdc', 'write', DD_MIB)}\n{linux.crash()}\n",
        disks=[
            {"vdev": "xvdb", "file": str(target), "backend": backend},
            {"vdev": "xvdc", "file": str(scratch), "backend": backend},
        ],
    )
    domain = xen.boot(guest)
    domain.wait_end(SECONDS)
    said = domain.console()
    dump = re.search(r"pvdump: dump complete: (\d+) MiB in \d+ MiB, ([\d.]+) s", said)
    dd = re.search(r"lab: dd xvdc write (\d+) MiB ([\d.]+) s", said)
    if not dump or not dd:
        raise Trouble(f"{backend}: no figures on the guest's console:\n{said[-2000:]}")
    return round(int(dump[1]) / float(dump[2]), 1), round(int(dd[1]) / float(dd[2]), 1)
