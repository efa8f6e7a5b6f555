"""A disk that boots Linux: GRUB, the kernel and the initramfs, one after the other, no file system.

Used for HVM guests with `kernel: debian`. With xl's own kernel= SeaBIOS would read the kernel byte
by byte from QEMU, which takes 40 s under emulation; GRUB reads it by DMA from an AHCI disk in 7 s.
A PVH guest that boots its own disk gets GRUB from here too. The rule: GRUB searches for nothing;
its built-in configuration names sectors. Source: GRUB manual, "Block list syntax";
grub-core/boot/i386/pc (core.img follows in sector 1).
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from lab import LabError, packages
from lab.root import Root, run
from tools.progress import NULL, Display

SECTOR = 512
CORE, FIRST = 1, 2048  # sectors: core.img's, the kernel's
FOLDER = "/usr/lib/grub/i386-pc"


def pvh(suite: str, progress: Display = NULL) -> Path:
    """Return GRUB as a PVH kernel, which reads /boot/grub/grub.cfg of the guest's disks."""
    return packages.grub_pvh(suite, progress).find("/usr/lib/grub-xen/grub-i386-xen_pvh.bin")


def write(path: Path, root: Root, kernel: bytes, ramdisk: bytes, cmdline: str) -> None:
    """Write a disk that boots Linux.

    Args:
        path: The raw file to write.
        root: Unpacked packages with grub-pc-bin and grub-common.
        kernel: The bzImage.
        ramdisk: The initramfs.
        cmdline: The kernel's command line.

    Raises:
        LabError: grub-mkimage fails, or its image is too large.
    """
    second = FIRST + _sectors(kernel)
    lines = (
        f"linux (hd0){FIRST}+{_sectors(kernel)} {cmdline}",
        f"initrd (hd0){second}+{_sectors(ramdisk)}",
        "boot",
    )
    core = _core(root, "".join(f"{line}\n" for line in lines))
    if len(core) > (FIRST - CORE) * SECTOR:
        raise LabError(f"GRUB's core.img has {len(core)} bytes, which is too large")
    with path.open("wb") as stream:
        stream.write(root.find(f"{FOLDER}/boot.img").read_bytes())
        for sector, data in ((CORE, core), (FIRST, kernel), (second, ramdisk)):
            stream.seek(sector * SECTOR)
            stream.write(data)
        stream.truncate((second + _sectors(ramdisk)) * SECTOR)


def _core(root: Root, configuration: str) -> bytes:
    with tempfile.TemporaryDirectory(prefix="lab-grub-") as name:
        folder = Path(name)
        (folder / "grub.cfg").write_text(configuration, encoding="utf-8")
        files = ("-c", str(folder / "grub.cfg"), "-o", str(folder / "core.img"))
        where = ("-d", str(root.find(FOLDER)), "-O", "i386-pc", "-p", "")
        done = run(root, "/usr/bin/grub-mkimage", *where, *files, "biosdisk", "linux", "boot")
        if done.returncode:
            raise LabError(f"grub-mkimage: exit {done.returncode}\n{done.stdout}")
        return (folder / "core.img").read_bytes()


def _sectors(data: bytes) -> int:
    return -(-len(data) // SECTOR)
