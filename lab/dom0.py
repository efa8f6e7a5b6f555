"""The files that QEMU boots: Xen, dom0's kernel and its initramfs, built from packages.

Used by lab.xen. dom0 is busybox, the xl toolstack, both xenstoreds, xenconsoled, the device model,
and lab-domain, which has the operations that xl lacks. The rule: dom0 keeps nothing and decides
nothing; its init starts the daemons and then obeys commands from a virtio console: it mounts the
job folder (9p) and runs scripts from there, and answers each with its exit code.
"""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from pathlib import Path

from lab import packages, program
from lab.cpio import Cpio
from lab.kernel import Kernel, unpack
from lab.root import Root
from tools import cache
from tools.progress import NULL, Display

FILES = Path(__file__).parent / "dom0"
MODULES = (
    *("xen-evtchn", "xen-gntdev", "xen-gntalloc", "xen-privcmd", "xenfs", "xen-blkback", "loop"),
    *("virtio_pci", "virtio_console", "virtio_scsi", "sd_mod", "9p", "9pnet_virtio"),
)
TOOLS = (
    *("xl", "xenstored", "oxenstored", "xenconsoled", "xenconsole", "xen-init-dom0"),
    *("libxl-save-helper", "xen-hvmctx", "lsevtchn", "xen-hvmcrash"),
)
DATA = (
    "/usr/libexec/xen-qemu-system-i386",
    "/usr/share/seabios/bios-256k.bin",
    "/usr/share/qemu/linuxboot.bin",
    "/usr/share/qemu/linuxboot_dma.bin",
    "/usr/share/qemu/kvmvapic.bin",
    "/usr/share/qemu/keymaps/en-us",
)
STORE = ("exists", "list", "ls", "read", "rm", "write", "watch", "chmod", "control")
FOLDERS = ("proc", "sys", "dev", "tmp", "run", "job", "root", "mnt", "var/lib/xen")


@dataclass(frozen=True)
class Dom0:
    """A dom0 is three files on the host.

    Attributes:
        xen: Xen, a multiboot ELF file.
        vmlinux: dom0's kernel, an ELF file.
        initramfs: dom0's root file system, a cpio archive.
    """

    xen: Path
    vmlinux: Path
    initramfs: Path


def build(suite: str, progress: Display = NULL) -> Dom0:
    """Return the three files of a suite, made unless they are in the cache."""
    root = packages.dom0(suite, progress)
    domain = program.build(FILES / "lab-domain.c", suite, progress)
    sources = sorted(path for path in (*FILES.iterdir(), Path(__file__)))
    key = cache.digest(root.path, domain, *(cache.file_digest(path) for path in sources))

    def make(folder: Path) -> None:
        with progress.stage("build dom0") as stage:
            kernel = Kernel(root)
            xen = next(iter(root.path.glob("boot/xen-*-amd64.gz")))
            (folder / "xen").write_bytes(gzip.decompress(xen.read_bytes()))
            stage.note(kernel.release)
            (folder / "vmlinux").write_bytes(unpack(kernel.image.read_bytes()))
            with (folder / "dom0.cpio").open("wb") as stream:
                _fill(Cpio(stream), root, kernel, domain)

    path = cache.stamped(cache.folder("lab", suite), "dom0", key, make)
    return Dom0(path / "xen", path / "vmlinux", path / "dom0.cpio")


def _fill(archive: Cpio, root: Root, kernel: Kernel, domain: Path) -> None:
    binaries = "/" + str(root.glob("usr/lib/xen-4.*/bin").relative_to(root.path))
    boot = "/" + str(root.glob("usr/lib/xen-4.*/boot").relative_to(root.path))
    for top in ("bin", "sbin", "lib", "lib64"):
        archive.folder(f"usr/{top}")
        archive.symlink(top, f"usr/{top}")
    for name in (*FOLDERS, "var/lib/xenstored"):
        archive.folder(name)
    archive.symlink("var/run", "/run")
    archive.symlink("var/lock", "/run/lock")
    archive.symlink("var/log", "/run/log")
    archive.device("dev/console", 5, 1)
    archive.file("bin/busybox", root.find("/bin/busybox").read_bytes(), 0o755)
    archive.symlink("bin/sh", "busybox")
    archive.symlink("tools", binaries)
    root.put(archive, [f"{binaries}/{name}" for name in TOOLS])
    root.put(archive, [*DATA, f"{boot}/hvmloader", "/usr/bin/xenstore-read"])
    for name in STORE:
        path = f"/usr/bin/xenstore-{name}"
        root.put(archive, [path])
    for plugin in sorted((root.path / binaries[1:] / "..").resolve().glob("**/*.cmxs")):
        archive.file(str(plugin.relative_to(root.path)), plugin.read_bytes(), 0o755)
    for name in ("etc/xen/xl.conf", "etc/xen/oxenstored.conf"):
        archive.file(name, root.find(f"/{name}").read_bytes())
    loads = kernel.modules(MODULES)
    for name, content in loads:
        archive.file(f"modules/{name}", content)
    archive.file("modules/order", "".join(f"{name}\n" for name, _ in loads))
    archive.file("etc/xen/scripts/block", (FILES / "block").read_bytes(), 0o755)
    archive.file(f"usr/bin/{domain.name}", domain.read_bytes(), 0o755)
    archive.file("init", (FILES / "init").read_bytes(), 0o755)
    archive.close()
