"""The Linux guest: Debian's cloud kernel and an initramfs that does what the guest's `run` says.

Used by lab.domain for `kernel: debian`; the functions below that give shell lines are for tests and
the demo. The rule: its init does nothing but mount, load the block driver, wait for the disks and
run the lines, and it says how they ended ("lab: run ended CODE").
"""

from __future__ import annotations

import io
import shlex
import shutil
from pathlib import Path

from lab import bootdisk, packages
from lab.cpio import Cpio
from lab.guest import Guest, image
from lab.kernel import Kernel
from tools import cache
from tools.progress import NULL, Display

INIT = Path(__file__).parent / "linux" / "init"
BOOT = "boot.img"
MODULES = ("xen-blkfront",)


def put(folder: Path, suite: str, guest: Guest, progress: Display = NULL) -> None:
    """Write what a guest boots from: a boot disk (HVM), or the files "kernel" and "ramdisk"."""
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
    """Make what a guest boots, kernel and initramfs, and give text that tells two apart."""
    root = packages.guest(suite, progress)
    return f"{root.path} {_base(suite, guest, progress)}"


def _base(suite: str, guest: Guest, progress: Display) -> Path:
    """The archive of all that guests with the same programs and modules have in common."""
    root = packages.guest(suite, progress)
    more = packages.programs(suite, progress) if guest.programs else None
    sources = (cache.file_digest(path) for path in (INIT, Path(__file__)))
    key = cache.digest(root.path, more and more.path, guest.programs, guest.modules, *sources)

    def make(folder: Path) -> None:
        with (folder / "base.cpio").open("wb") as stream:
            archive = Cpio(stream)
            for top in ("bin", "sbin", "lib", "lib64"):
                archive.folder(f"usr/{top}")
                archive.symlink(top, f"usr/{top}")
            for name in ("proc", "sys", "dev", "tmp", "run", "etc"):
                archive.folder(name)
            archive.device("dev/console", 5, 1)
            archive.file("bin/busybox", root.find("/bin/busybox").read_bytes(), 0o755)
            archive.symlink("bin/sh", "busybox")
            root.put(archive, ["/sbin/kexec"])
            if more:
                more.put(archive, guest.programs)
            loads = Kernel(root).modules((*MODULES, *guest.modules))
            for name, content in loads:
                archive.file(f"modules/{name}", content)
            archive.file("modules/order", "".join(f"{name}\n" for name, _ in loads))
            archive.file("init", INIT.read_bytes(), 0o755)
            archive.close()

    return cache.stamped(cache.folder("lab", suite), "linux", key, make) / "base.cpio"


def release(suite: str) -> str:
    """The guests' kernel release, as `uname -r` gives it."""
    return Kernel(packages.guest(suite)).release


def kexec(image: str, cmdline: str, file_mode: bool = False) -> str:
    """A line that loads a crash image.

    image: its name in the guest.
    file_mode: kexec_file_load instead of kexec_load.
    """
    mode = "-s" if file_mode else "-c"
    return f"kexec -p {mode} {image} --command-line={shlex.quote(cmdline)}"


def crash(cpu: int = 0) -> str:
    """A line that panics the kernel on a vCPU."""
    return f"taskset {1 << cpu:x} sh -c 'echo c >/proc/sysrq-trigger'"


def wait_disk(vdev: str) -> str:
    """A line that waits until a disk can be opened, which may be later than its node is there.

    Who opens it also waits until the kernel has looked for partitions.
    """
    return f"until true </dev/{vdev}; do usleep 20000; done 2>/dev/null"


def disk_speed(vdev: str, op: str, mib: int) -> str:
    """Lines that time a direct write or read; print "lab: dd VDEV OP MIB MiB SECONDS s"."""
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
