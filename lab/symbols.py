"""Debug symbols of the Linux guests' kernel, for drgn and crash.

Used by the tests and the demo. The rule: their version is that of the guests' kernel. The package
of some 300 MB is fetched on first use; only its vmlinux (600 MB) is kept.
"""

from __future__ import annotations

from pathlib import Path

from lab import packages
from lab.kernel import Kernel
from tools import cache
from tools.apt import extract
from tools.progress import NULL, Display


def vmlinux(suite: str, progress: Display = NULL) -> Path:
    """Return vmlinux with debug symbols, for guests of a suite with `kernel: debian`."""
    store = packages.guests(suite, progress)
    release = Kernel(packages.guest(suite, progress)).release
    package = f"linux-image-{release}"
    version = store.versions(packages.guest_names(suite))[package]
    name = f"usr/lib/debug/boot/vmlinux-{release}"

    def make(folder: Path) -> None:
        (deb,) = store.debs([f"{package}-dbg={version}"], dependencies=False)
        with progress.stage("unpack") as stage:
            stage.note(f"symbols of {release}")
            # In /boot, or a link from there to the modules.
            extract(deb, folder, "--wildcards", "./usr/lib/debug/*/vmlinux*")
        deb.unlink()  # only vmlinux is kept

    key = cache.digest(release, version)
    return cache.stamped(cache.folder("lab", suite), "symbols", key, make, keep=1) / name
