"""nbdkit in a running dom0, which serves a file or a disk.

Used by tests. As lab.python, it is unpacked in dom0 only when a test asks for it. The rule: it has
only the file plugin and the cache filter, which keeps written data in memory until a flush.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from lab import packages
from lab.cpio import Cpio
from tools import cache

if TYPE_CHECKING:
    from lab.xen import Xen

HOME = "/usr/lib/x86_64-linux-gnu/nbdkit"
PARTS = (f"{HOME}/plugins/nbdkit-file-plugin.so", f"{HOME}/filters/nbdkit-cache-filter.so")


def put(xen: Xen) -> None:
    """Unpack `nbdkit` in a running dom0."""
    root = packages.nbd(xen.suite, xen.progress)
    key = cache.digest(root.path, cache.file_digest(Path(__file__)))

    def make(folder: Path) -> None:
        with (folder / "nbd.cpio").open("wb") as stream:
            archive = Cpio(stream)
            program = f"/{root.glob('usr/*bin/nbdkit').relative_to(root.path)}"
            root.put(archive, [program, *PARTS])
            archive.close()

    xen.unpack(cache.stamped(cache.folder("lab", xen.suite), "nbd", key, make) / "nbd.cpio")
