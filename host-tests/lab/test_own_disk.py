"""Guests that boot what is on a disk of their own: `kernel: disk`."""

import shutil

import pytest
from fixtures.xens import ONE

from lab import linux, packages, root
from lab.guest import Guest

pytestmark = [pytest.mark.xen, pytest.mark.matrix(xen=ONE, indirect=["xen"])]

CMDLINE = "console=hvc0 random.trust_cpu=on"
RUN = "cat /proc/cmdline; ls /dev/xvda"
GRUB = f"linux /boot/kernel {CMDLINE} by=grub\ninitrd /boot/ramdisk\nboot\n"


def debian(kind, folder, suite, cmdline):
    """Write what a Debian guest boots from into a folder, as the lab does for its own."""
    fields = {"name": "any", "type": kind, "kernel": "debian", "cmdline": cmdline, "run": RUN}
    folder.mkdir()
    linux.put(folder, suite, Guest.parse(fields))


@pytest.fixture
def hvm_disk(xen, tmp_path):
    """A disk with a boot loader in its first sector."""
    debian("hvm", tmp_path / "debian", xen.suite, f"{CMDLINE} by=grub")
    return tmp_path / "debian" / linux.BOOT


@pytest.fixture
def pvh_disk(xen, tmp_path):
    """A disk that is a file system with GRUB's configuration."""
    tree, disk = tmp_path / "tree", tmp_path / "disk.img"
    debian("pvh", tmp_path / "debian", xen.suite, "")
    (tree / "boot/grub").mkdir(parents=True)
    for name in ("kernel", "ramdisk"):
        shutil.move(tmp_path / "debian" / name, tree / "boot" / name)
    (tree / "boot/grub/grub.cfg").write_text(GRUB)
    command = ("-q", "-t", "ext2", "-d", str(tree), str(disk), "96M")
    done = root.run(packages.programs(xen.suite), "/sbin/mke2fs", *command)
    assert done.returncode == 0, done.stdout
    return disk


@pytest.mark.parametrize("kind", ["hvm", "pvh"])
def test_a_guest_boots_the_disk_it_has(xen, request, kind):
    disks = [{"vdev": "xvda", "file": str(request.getfixturevalue(f"{kind}_disk"))}]
    fields = {"type": kind, "kernel": "disk", "memory": 256, "disks": disks}
    domain = xen.create(Guest.parse({"name": f"own-{kind}", **fields}))
    assert domain.wait_end() == "poweroff", domain.console()
    assert "by=grub" in domain.console()
    assert "/dev/xvda" in domain.console().splitlines()


def test_a_kernel_of_one_s_own_boots_with_its_ramdisk(xen, tmp_path):
    debian("pvh", tmp_path / "debian", xen.suite, "")
    names = {name: str(tmp_path / "debian" / name) for name in ("kernel", "ramdisk")}
    fields = {"type": "pvh", "memory": 256, "cmdline": CMDLINE}
    domain = xen.create(Guest.parse({"name": "own-kernel", **names, **fields}))
    assert domain.wait_end() == "poweroff", domain.console()
    assert "lab: run ended" in domain.console()
