"""`./build.py bench growth`: what a dump of the same pages costs in guests of any size.

On the embedded Xen, natively: the firmware under CPython with the image's C. Each guest keeps 32
MiB; the rest of its RAM is page cache and free pages, which the filter must judge. Beside it, the
same of the smallest guest. The rule: CPU time counts, since Xen's clock stands still meanwhile.
"""

from __future__ import annotations

import contextlib
import io
import sys
import time
from pathlib import Path

from bench import figure
from tools import hwlib
from tools.progress import Display

TESTS = Path(__file__).resolve().parent.parent / "host-tests"
SIZES = (4, 64, 1023)  # GiB
DISK = 64 << 20
ROUNDS = 3


def run(progress: Display) -> None:
    """Measure each size and print two lines for it."""
    hwlib.install()
    sys.path.append(str(TESTS))  # the crashed kernel is that of the tests
    least = None
    for gib in SIZES:
        with progress.stage(f"{gib} GiB"):
            found = min(dump(gib) for _ in range(ROUNDS))
        least = least or found
        figure.show(f"dump of 32 MiB of {gib} GiB, CPU time", found[0], least[0], "s")
        figure.show(f"dump of 32 MiB of {gib} GiB, pages taken", found[1], least[1], "pages")


def dump(gib: int) -> tuple[float, int]:
    """Dump a guest. Returns the CPU seconds, and the most pages that hw.alloc_pages had given."""
    from fixtures.largekernel import LargeKernel

    import hw
    from pvfw import main, superblock
    from pvxen.guest import EmbeddedGuest
    from pvxen.machine import Shutdown
    from pvxen.sink import Memory

    kernel, disk, most = LargeKernel(gib), Memory(DISK), 0
    guest = EmbeddedGuest(**kernel.options)
    machine = guest.machine
    kernel.leave(machine.ram)
    disk.data[:512] = superblock.Superblock(bytes(16), DISK).encode()
    guest.disk("xvdb", disk)
    take = machine.alloc_pages

    def alloc_pages(n: int) -> int:
        nonlocal most
        address = take(n)
        most = max(most, machine._taken.count(1))
        return address

    machine.alloc_pages = alloc_pages
    began = time.process_time()
    said = io.StringIO()
    with contextlib.redirect_stdout(said), hw.attached(machine), contextlib.suppress(Shutdown):
        main.main()
    took = time.process_time() - began
    assert superblock.decode(bytes(disk.data[:512])).state == superblock.COMPLETE, said.getvalue()
    return took, most
