"""The disk of `./build.py bench boot`: an installed Debian whose kernel says what it does.

The guest itself makes the changes, once, with the programs that a person would use: an initrd with
all drivers, as Debian makes it by default, and a command line without `quiet`. Kernel and initrd
are then read from the disk on the host, for xl's own kernel=.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from lab import install, packages, root
from lab.xen import Xen
from tools import Trouble
from tools.progress import MIB

CHANGE = """\
sed -i 's/^MODULES=.*/MODULES=most/' /etc/initramfs-tools/conf.d/lab
sed -i -e 's/^\\(GRUB_CMDLINE_LINUX_DEFAULT\\)=.*/\\1="loglevel=7"/' /etc/default/grub
update-initramfs -u
update-grub
"""
BEGIN = install.LAYOUTS["ext4"].partitions[0][0]


@dataclass(frozen=True)
class Disk:
    """A Disk is what all ways boot from.

    Attributes:
        path: The raw disk.
        kernel, initrd: Copies of the files on it that are booted.
        cmdline: The command line that its grub.cfg has.
        initrd_name: The initrd's name in the guest.
    """

    path: Path
    kernel: Path
    initrd: Path
    cmdline: str
    initrd_name: str


def prepared(xen: Xen, folder: Path, fields: dict[str, object]) -> Disk:
    """Boot an installed guest, change it, and take its disk.

    Args:
        xen: The Xen to boot it on.
        folder: For the files that are copied from the disk.
        fields: Fields of the guest, as docs/lab.md has them.
    """
    guest = xen.boot_installed("ext4", **fields)
    guest.run(CHANGE)
    cmdline = guest.run("cat /proc/cmdline").output.split()
    (release, uuid) = guest.run("uname -r; findmnt -n -o UUID /").output.split()
    config = guest.run("cat /boot/grub/grub.cfg").output
    guest.run("setsid sh -c 'sleep 1; systemctl poweroff' >/dev/null 2>&1 &")
    guest.wait_end()
    guest.wait_until(lambda: guest.state() == "gone", "its domain to be destroyed")
    found = re.search(rf"^\s*linux\s+/boot/vmlinuz-{release} (root=.*?)\s*$", config, re.M)
    if not found or uuid not in found[1]:
        raise Trouble(f"grub.cfg does not boot {release} from {uuid}; it was booted by {cmdline}")
    names = [f"/boot/{kind}-{release}" for kind in ("vmlinuz", "initrd.img")]
    copies = [folder / name.rpartition("/")[2] for name in names]
    for name, copy in zip(names, copies, strict=True):
        where = f"{guest.disk}?offset={BEGIN * MIB}"
        done = root.run(packages.disks(), "/sbin/debugfs", "-R", f"dump {name} {copy}", where)
        if done.returncode or not copy.exists():
            raise Trouble(f"{name} cannot be read from the disk: {done.stdout}")
    return Disk(guest.disk, *copies, found[1], names[1])
