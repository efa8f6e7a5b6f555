"""pygrub in a running dom0, and a guest that xl boots by it.

Used by `./build.py bench boot`. pygrub is Python of Debian's xen-utils; lab.python has put the
interpreter there before, without what is added here. The rule: pygrub's files are where Debian has
them, since libxl looks for it there.
"""

from __future__ import annotations

from lab import packages
from lab.cpio import Cpio
from lab.guest import Guest
from lab.xen import Xen

MODULES = ("bin/pygrub", "lib/python/grub/*.py", "lib/python/xenfsimage.*.so")
# What it needs is looked for from where it is itself, which lab.root does not know.
PLUGIN = "lib/x86_64-linux-gnu/xenfsimage/ext2fs-lib/fsimage.so"
LIBRARY = "/usr/lib/x86_64-linux-gnu/libext2fs.so.2"
# pygrub imports it, also where it shows no menu.
CURSES = ("curses/*.py", "lib-dynload/_curses.*.so")


class ByPygrub(Guest):
    """A guest whose kernel pygrub reads from the guest's disk, in dom0."""

    def config(self, folder: str, devices: list[str]) -> str:
        """Return the xl configuration; see Guest."""
        lines = super().config(folder, devices).splitlines(keepends=True)
        kept = [line for line in lines if not line.startswith(("kernel =", "cmdline ="))]
        # Without --quiet it wants a description of its terminal, to draw a menu.
        return "".join(kept) + 'bootloader = "pygrub"\nbootloader_args = ["--quiet"]\n'


def put(xen: Xen) -> None:
    """Unpack pygrub in a running dom0 that has Python."""
    path = xen.workdir / "pygrub.cpio"
    with path.open("wb") as stream:
        archive = Cpio(stream)
        root = packages.dom0(xen.suite, xen.progress)
        home = root.glob("usr/lib/xen-4.*")
        files = [found for pattern in MODULES for found in sorted(home.glob(pattern))]
        root.put(archive, [f"/{file.relative_to(root.path)}" for file in files] + [LIBRARY])
        plugin = home / PLUGIN
        archive.file(str(plugin.relative_to(root.path)), plugin.read_bytes(), 0o755)
        root = packages.python(xen.suite, xen.progress)
        library = root.glob("usr/lib/python3.[0-9]*[0-9]")
        files = [found for pattern in CURSES for found in sorted(library.glob(pattern))]
        root.put(archive, [f"/{file.relative_to(root.path)}" for file in files])
        archive.close()
    xen.unpack(path)
    xen.sh("mkdir -p /run/xen/pygrub /var/lib/xen/pygrub /var/log/xen")
