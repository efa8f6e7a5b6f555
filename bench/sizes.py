"""`./build.py bench sizes`: what a dump takes in real guests of 1, 4 and 8 GiB.

On one Xen a Debian guest panics with the image loaded, each time with more memory and nothing else
changed, with the same 4 MiB reserved. Beside each figure is that of the smallest guest. Larger
guests keep more: their struct pages, 16 MiB a GiB, which are mostly the same bytes.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from bench.crash import OURS, crash
from bench.dump import BACKENDS, RESERVED, ROOT, needed
from bench.figure import show
from lab.xen import Xen
from tools import image
from tools.progress import Display

SIZES = (1, 4, 8)  # GiB
MACHINE = 10240  # MiB, for Xen, dom0 and the largest guest


def run(progress: Display) -> None:
    """Measure each size and print its figures."""
    image.build(ROOT / "out", progress=progress)
    with (
        tempfile.TemporaryDirectory(prefix="pvdump-bench-") as folder,
        Xen(memory=MACHINE, progress=progress) as xen,
    ):
        least = None
        for gib in SIZES:
            with progress.stage(f"{gib} GiB"):
                memory = gib * 1024
                found = needed(crash(xen, OURS, BACKENDS[0], Path(folder), memory, RESERVED))
            least = least or found
            dump, other = found.dumps[""], least.dumps[""]
            show(f"dump of {gib} GiB, first line to complete", found.took, least.took, "s")
            show(f"dump of {gib} GiB, CPU from panic to end", found.cpu, least.cpu, "s")
            show(f"dump of {gib} GiB, pages kept", dump.pages, other.pages, "pages")
            show(f"dump of {gib} GiB, written", dump.size, other.size, "bytes")
