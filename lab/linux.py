"""The Linux guest: Debian's cloud kernel and an initramfs that runs the lines of the guest's `run`.

Used by lab.domain for `kernel: debian`; the functions below that give shell lines are for tests and
the demo. The rule: its init only mounts, loads modules, waits for the disks, runs the lines and
prints their exit code ("lab: run ended CODE").
"""

from __future__ import annotations

import contextlib
import io
import shlex
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from lab import LabError, bootdisk, packages
from lab.cpio import Cpio
from lab.guest import Guest, image
from lab.kernel import Kernel
from lab.root import Root
from tools import cache
from tools.progress import NULL, Display

INIT = Path(__file__).parent / "linux" / "init"
BOOT = "boot.img"
MODULES = ("xen-blkfront",)
PROGRAMS = f"paths such as /usr/bin/fio, in {' or '.join(packages.PROGRAMS)}"


def put(folder: Path, suite: str, guest: Guest, progress: Display = NULL) -> None:
    """Write the files that a guest boots from: a boot disk (HVM), or "kernel" and "ramdisk".

    Args:
        folder: Where the files are written.
        suite: Debian release that the kernel and the programs are of, unless the guest says one.
        guest: A guest with `kernel: debian`.
        progress: Shows the steps.

    Raises:
        LabError: A file, program or module that the guest names does not exist.
    """
    suite = guest.suite or suite
    root = packages.guest(suite, progress)
    kernel = Kernel(root)
    own = io.BytesIO()
    archive = Cpio(own)
    archive.file("lab/disks", "".join(f"{disk.vdev}\n" for disk in guest.disks))
    archive.file("lab/run", guest.run)
    for name, path in guest.files.items():
        archive.file(name, image(path).read_bytes())
    archive.close()
    ramdisk = _base(suite, guest, progress).read_bytes() + own.getvalue()
    if guest.boots_from_lab:
        bootdisk.write(folder / BOOT, root, kernel.image.read_bytes(), ramdisk, guest.cmdline)
    else:
        shutil.copyfile(kernel.image, folder / "kernel")
        (folder / "ramdisk").write_bytes(ramdisk)


def described(suite: str, guest: Guest, progress: Display = NULL) -> str:
    """Unpack a guest's kernel and make its initramfs, unless they are in the cache.

    Returns:
        Text that is the same for two guests only if both have the same kernel and initramfs.

    Raises:
        LabError: A program or module that the guest names does not exist.
    """
    suite = guest.suite or suite
    root = packages.guest(suite, progress)
    return f"{root.path} {_base(suite, guest, progress)}"


def _base(suite: str, guest: Guest, progress: Display) -> Path:
    """Return the archive that all guests with the same programs and modules share."""
    root = packages.guest(suite, progress)
    more = packages.programs(suite, progress) if guest.programs else None
    sources = (cache.file_digest(path) for path in (INIT, Path(__file__)))
    key = cache.digest(root.path, more and more.path, guest.programs, guest.modules, *sources)

    def make(folder: Path) -> None:
        with (folder / "base.cpio").open("wb") as stream:
            archive = Cpio(stream)
            skeleton(archive, root)
            root.put(archive, ["/sbin/kexec"])
            if more:
                with _blamed(guest, "programs", f"expected {PROGRAMS}"):
                    more.put(archive, guest.programs)
            with _blamed(guest, "modules", "expected names as modprobe takes them"):
                put_modules(archive, root, (*MODULES, *guest.modules))
            archive.file("init", INIT.read_bytes(), 0o755)
            archive.close()

    return cache.stamped(cache.folder("lab", suite), "linux", key, make) / "base.cpio"


@contextlib.contextmanager
def _blamed(guest: Guest, field: str, expected: str) -> Iterator[None]:
    """Add to a LabError which guest and field it is about, and what the field may have."""
    try:
        yield
    except LabError as error:
        raise LabError(f"guest {guest.name}: {field}: {error}; {expected}") from None


def skeleton(archive: Cpio, root: Root) -> None:
    """Put in the folders of a Debian system, /dev/console and busybox."""
    for top in ("bin", "sbin", "lib", "lib64"):
        archive.folder(f"usr/{top}")
        archive.symlink(top, f"usr/{top}")
    for name in ("proc", "sys", "dev", "tmp", "run", "etc"):
        archive.folder(name)
    archive.device("dev/console", 5, 1)
    archive.file("bin/busybox", root.find("/bin/busybox").read_bytes(), 0o755)
    archive.symlink("bin/sh", "busybox")


def put_modules(archive: Cpio, root: Root, names: Iterable[str]) -> None:
    """Put in a kernel's modules and their order, for init to load. Raises LabError."""
    loads = Kernel(root).modules(names)
    for name, content in loads:
        archive.file(f"modules/{name}", content)
    archive.file("modules/order", "".join(f"{name}\n" for name, _ in loads))


def release(suite: str) -> str:
    """Return the guests' kernel release, as `uname -r` gives it."""
    return Kernel(packages.guest(suite)).release


def kexec(image: str, cmdline: str, file_mode: bool = False) -> str:
    """Return a shell line that loads a crash image.

    Args:
        image: The image's file name in the guest.
        cmdline: The image's command line.
        file_mode: Use kexec_file_load instead of kexec_load.
    """
    mode = "-s" if file_mode else "-c"
    return f"kexec -p {mode} {image} --command-line={shlex.quote(cmdline)}"


def crash(cpu: int = 0) -> str:
    """Return a shell line that panics the kernel on the vCPU `cpu`."""
    return f"taskset {1 << cpu:x} sh -c 'echo c >/proc/sysrq-trigger'"


def wait_disk(vdev: str) -> str:
    """Return a shell line that waits until a disk can be opened.

    Linux makes the disk's node before it can be opened. Opening waits until the kernel has looked
    for partitions.
    """
    return f"until true </dev/{vdev}; do usleep 20000; done 2>/dev/null"


def disk_speed(vdev: str, op: str, mib: int) -> str:
    """Return shell lines that time a direct write or read of a disk.

    They print "lab: dd VDEV OP MIB MiB SECONDS s".

    Args:
        vdev: The disk's name in the guest.
        op: "write" or "read".
        mib: MiB that are written or read.
    """
    how = {
        "write": f"if=/dev/zero of=/dev/{vdev} oflag=direct",
        "read": f"if=/dev/{vdev} of=/dev/null iflag=direct",
    }
    return (
        "from=$(cut -d' ' -f1 /proc/uptime)\n"
        f"dd {how[op]} bs=1M count={mib} 2>/dev/null\n"
        "till=$(cut -d' ' -f1 /proc/uptime)\n"
        f'echo "lab: dd {vdev} {op} {mib} MiB $(echo "$till $from" | awk \'{{print $1 - $2}}\') s"'
    )
