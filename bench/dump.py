"""`./build.py bench dump`: a guest's dump by the image, beside Linux's own kdump.

On one Xen, for each block backend: a Debian guest panics with the image loaded, and panics again,
twice, with Debian's own kernel as crash kernel, which runs makedumpfile. The second time that
kernel writes the dump in other ways. At last a guest's whole memory is dumped, and makedumpfile
makes its dumps of that on the host: of a guest in which just the image was loaded. With --smallest
both are also given less and less memory (bench/smallest.py). The rule: what is compared runs one
after the other on the same Xen.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from bench.crash import OURS, Crash, crash, image, linux_kdump
from bench.figure import show
from lab import flattened, readers
from lab.xen import Xen
from pvdump.dump.collect import collect
from pvdump.dump.disk import PAGE
from tools import Trouble
from tools import image as images
from tools.progress import MIB, Display

ROOT = Path(__file__).resolve().parent.parent
BACKENDS = ("blkback", "qdisk")
MEMORY = 1024  # MiB of the guest
RESERVED, THEIRS = 4, 128  # MiB for the image, and for Linux
FIRST = "l"  # as Debian's kdump-tools calls makedumpfile
# zlib and zstd take the time that they take, whatever the disk is.
OTHERS = {"blkback": ("c", "z", "dd"), "qdisk": ("dd",)}
NAMES = {
    "l": "makedumpfile -l -d 31",
    "c": "makedumpfile -c -d 31",
    "z": "makedumpfile -z -d 31",
    "dd": "dd of /proc/vmcore",
}


def run(progress: Display) -> None:
    """Measure on each backend and print a line for each figure."""
    images.build(ROOT / "out", progress=progress)
    with (
        tempfile.TemporaryDirectory(prefix="pvdump-bench-") as folder,
        Xen(progress=progress) as xen,
    ):
        for backend in BACKENDS:
            with progress.stage(f"{backend}, pvdump"):
                ours = needed(crash(xen, OURS, backend, Path(folder), MEMORY, RESERVED))
            with progress.stage(f"{backend}, {NAMES[FIRST]}"):
                theirs = linux_kdump(FIRST)
                first = needed(crash(xen, theirs, backend, Path(folder), MEMORY, THEIRS))
            with progress.stage(f"{backend}, {', '.join(NAMES[way] for way in OTHERS[backend])}"):
                theirs = linux_kdump(*OTHERS[backend])
                others = needed(crash(xen, theirs, backend, Path(folder), MEMORY, THEIRS))
            figures(f"dump {backend}", ours, first, others)
            if backend == BACKENDS[0]:
                with progress.stage("the same guest's memory"):
                    of_the_same_memory(xen, ours, Path(folder))


def needed(found: Crash | None) -> Crash:
    """Return what a crash took. Raises Trouble if there was no dump."""
    if found is None:
        raise Trouble("no dump was written")
    return found


def figures(name: str, ours: Crash, first: Crash, others: Crash) -> None:
    """Print the figures of a backend."""
    show(f"{name}, panic to first line", ours.entry, first.entry, "s")
    show(f"{name}, first line to complete", ours.took, first.took, "s")
    show(f"{name}, panic to complete", ours.entry + ours.took, first.entry + first.took, "s")
    show(f"{name}, CPU from panic to end", ours.cpu, first.cpu, "s")
    dump, peer = ours.dumps[""], first.dumps[FIRST]
    show(f"{name}, pages kept", dump.pages, peer.pages, "pages")
    show(f"{name}, kept a second", speed(ours, dump.pages), speed(first, peer.pages), "MiB/s")
    for way, peer in (first.dumps | others.dumps).items():
        show(f"{name}, written, beside {NAMES[way]}", dump.size, peer.size, "bytes")
        show(f"{name}, writing, beside {NAMES[way]}", dump.writing, peer.writing, "s")


def of_the_same_memory(xen: Xen, ours: Crash, folder: Path) -> None:
    """Print what makedumpfile makes of the whole memory of a guest like that of `ours`."""
    needed(crash(xen, image(0), BACKENDS[0], folder, MEMORY, RESERVED))
    whole = folder / "whole"
    collect(folder / "disk.img", whole, form="elf")
    for way in (FIRST, *OTHERS[BACKENDS[0]]):
        if way == "dd":
            continue
        out = folder / way
        readers.makedumpfile(f"-{way}", "-d", "31", whole, out)
        name = f"dump of the same guest, beside {NAMES[way]}"
        dump = ours.dumps[""]
        show(f"{name}, pages kept", dump.pages, flattened.pages(out), "pages")
        show(f"{name}, written", dump.size, out.stat().st_size, "bytes")


def speed(found: Crash, pages: int) -> float:
    """Return MiB of pages a second, from the first line on."""
    return pages * PAGE / MIB / found.took
