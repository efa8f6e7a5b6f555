"""pvboot on a real Xen boots Debian's kernel from the guest's own disk, and hands all back."""

import re

import pytest
from fixtures.bootdisks import DEBIAN_13, MIB, ext, gpt
from fixtures.xens import XENS

from lab import linux
from lab.guest import Guest
from tools import image

pytestmark = pytest.mark.xen

LINUX = "0fc63daf-8483-4772-8e79-3d69d8477de4"
ENTRY = """title Debian
version 1
linux /boot/vmlinuz
initrd /boot/initrd
options random.trust_cpu=on
"""
# What the guest does: it reads its disk for as long as it is looked at.
RUN = """\
cat /proc/cmdline
n=0
while dd if=/dev/xvda of=/dev/null bs=64k count=16 iflag=direct 2>/dev/null && [ $n -lt 3000 ]; do
    n=$((n + 1)); echo "read $n"; usleep 300000
done
"""


@pytest.fixture(scope="module")
def pvboot():
    """The image as `./build.py image` builds it, where the lab's guests look for it."""
    return image.build(image.ROOT / "out", config=image.ROOT / "pvboot.yaml")


def disk(folder, suite):
    """Make a disk with Debian's kernel, the lab's initramfs, and an entry that names them."""
    home = {"name": "home", "type": "pvh", "kernel": "debian", "run": RUN}
    guest = Guest.parse({**home, "disks": [{"vdev": "xvda", "size": 1}]})
    linux.put(folder, suite, guest)
    files = {
        "boot/vmlinuz": (folder / "kernel").read_bytes(),
        "boot/initrd": (folder / "ramdisk").read_bytes(),
        "boot/loader/entries/debian.conf": ENTRY.encode(),
    }
    root = ext(folder, files, "-b", "4096", "-O", DEBIAN_13, size=128 * MIB)
    path = folder / "disk.img"
    path.write_bytes(gpt(folder, [(LINUX, root)]))
    return path


DOORS = {"pvh": "pvboot-elf", "firmware": "pvboot-fw"}


@pytest.fixture
def booted(pvboot, xen, guest, tmp_path):
    """Boots a guest from its own disk. Returns its Domain once Linux reads the disk."""

    def of(door, backend):
        disks = [{"vdev": "xvda", "file": str(disk(tmp_path, xen.suite)), "backend": backend}]
        domain = xen.create(guest(f"{door}.yaml", kernel=DOORS[door], disks=disks, memory=256))
        domain.wait_console(r"^pvdump: Debian: kernel \d+ KiB, initrd \d+ KiB, read in \d+ ms")
        domain.wait_console(r"^random.trust_cpu=on console=hvc0")
        domain.wait_console(r"^read 3\r?$")
        return domain

    return of


@pytest.mark.matrix(xen=XENS, door=list(DOORS), backend=["blkback", "qdisk"], indirect=["xen"])
def test_debian_boots_from_its_own_disk_and_survives_a_migration(booted, door, backend):
    domain = booted(door, backend)
    assert re.search(r"Hypervisor detected: Xen (?:HVM|PVH)", domain.console())
    domain.migrate()
    first = int(domain.wait_console(r"^read (\d+)")[1])
    domain.wait_console(rf"^read {first + 5}\r?$")
    domain.destroy()
