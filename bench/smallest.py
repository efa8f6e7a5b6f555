"""`./build.py bench dump --smallest`: the least crashkernel= with which there is a dump.

The rule: of a few sizes in ascending order the least that works is found by bisection, so each
kind of crash kernel has to panic a few times only.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from bench.crash import OURS, Kind, crash, linux_kdump
from bench.dump import BACKENDS, FIRST, MEMORY, ROOT
from bench.figure import show
from lab.xen import Xen
from tools import Trouble, image
from tools.progress import Display

SIZES = (2, 3, 4)  # MiB
THEIR_SIZES = (48, 64, 72, 80, 96, 112, 128)


def run(progress: Display) -> None:
    """Find both sizes and print a line."""
    image.build(ROOT / "out", progress=progress)
    with (
        tempfile.TemporaryDirectory(prefix="pvdump-bench-") as folder,
        Xen(progress=progress) as xen,
    ):

        def works(kind: Kind, size: int) -> bool:
            with progress.stage(f"crashkernel={size}M") as stage:
                found = crash(xen, kind, BACKENDS[0], Path(folder), MEMORY, size)
                stage.note("a dump" if found else "no dump")
            return found is not None

        ours = least(SIZES, lambda size: works(OURS, size))
        peer = least(THEIR_SIZES, lambda size: works(linux_kdump(FIRST), size))
    show("dump, smallest crashkernel", ours, peer, "MiB")


def least(sizes: Sequence[int], works: Callable[[int], bool]) -> int:
    """Return the least of ascending sizes that works. Raises Trouble if the last one does not."""
    low, high = 0, len(sizes)
    while low < high:
        middle = (low + high) // 2
        if works(sizes[middle]):
            high = middle
        else:
            low = middle + 1
    if low == len(sizes):
        raise Trouble(f"{sizes[-1]} MiB do not suffice")
    return sizes[low]
