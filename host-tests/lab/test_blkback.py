"""Our block backend in a real dom0: Debian's blkfront and our own front end on its disks."""

import hashlib
import os
import re

import pytest
from blkback.dom0 import WAIT, Site, linux_guest, on_each, on_one

from lab import linux
from pvdump.dump.info import read_superblock
from pvfw import superblock

pytestmark = pytest.mark.xen

MIB = 1 << 20
CHECK = "pvdump.run=check pvdump.disk=xvdb"
DUMP = "pvdump.then=poweroff pvdump.disk=xvdb"


@pytest.fixture(scope="module")
def site(xen):
    return Site(xen)


@pytest.fixture
def disk(tmp_path):
    path = tmp_path / "disk.img"
    with path.open("wb") as stream:
        stream.truncate(64 * MIB)
    return path


@pytest.fixture
def noise(tmp_path):
    path = tmp_path / "noise"
    path.write_bytes(os.urandom(8 * MIB))
    return path


@on_each
def test_what_linux_writes_is_on_the_disk_and_reads_back(site, guest, disk, noise):
    run = (
        "dd if=/noise of=/dev/xvdb bs=1M oflag=direct\n"
        "dd if=/noise of=/dev/xvdb bs=64k seek=256\n"
        "for i in 0 77 3 200 9 1023; do\n"
        "    dd if=/noise of=/dev/xvdb bs=4k count=1 skip=$i seek=$((8192 + i)) oflag=direct\n"
        "done 2>/dev/null\n"
        "sync\n"
        "echo 3 >/proc/sys/vm/drop_caches\n"
        "echo sum $(dd if=/dev/xvdb bs=1M count=48 iflag=direct | sha256sum)\n"
    )
    domain = site.create(
        linux_guest(guest, run, files={"noise": str(noise)}), site.xen.attach(disk)
    )
    assert domain.wait_end() == "poweroff"
    data = noise.read_bytes()
    wanted = bytearray(48 * MIB)
    wanted[: 8 * MIB] = wanted[16 * MIB : 24 * MIB] = data
    for i in (0, 77, 3, 200, 9, 1023):
        at = 32 * MIB + i * 4096
        wanted[at : at + 4096] = data[i * 4096 : (i + 1) * 4096]
    assert disk.read_bytes()[: 48 * MIB] == wanted
    assert f"sum {hashlib.sha256(wanted).hexdigest()}" in domain.console()


@on_each
def test_a_disk_is_taken_away_and_given_again_while_the_guest_runs(site, guest, disk, noise):
    run = (
        "dd if=/noise of=/dev/xvdb bs=1M oflag=direct; echo written\n"
        "while [ -b /dev/xvdb ]; do usleep 50000; done; echo gone\n"
        f"{WAIT}"
        "echo sum $(dd if=/dev/xvdb bs=1M count=8 iflag=direct | sha256sum)\n"
    )
    device = site.xen.attach(disk)
    domain = site.create(linux_guest(guest, run, files={"noise": str(noise)}), device)
    domain.wait_console("^written")
    site.detach(domain)
    domain.wait_console("^gone")
    site.attach(domain, device)
    assert domain.wait_end() == "poweroff"
    assert f"sum {hashlib.sha256(noise.read_bytes()).hexdigest()}" in domain.console()


@on_one
def test_a_guest_that_is_destroyed_under_load_leaves_nothing_and_hurts_no_other(
    site, guest, disk, noise
):
    load = "echo load; while :; do dd if=/dev/zero of=/dev/xvdb bs=1M count=32 oflag=direct; done"
    dying = site.create(linux_guest(guest, load), site.xen.attach(disk))
    dying.wait_console("records out")
    site.xen.sh("truncate -s 16M /run/other.img")
    run = (
        "dd if=/noise of=/dev/xvdb bs=1M oflag=direct; echo written; read line </dev/hvc0\n"
        "echo sum $(dd if=/dev/xvdb bs=1M count=8 iflag=direct | sha256sum)\n"
    )
    other = site.create(linux_guest(guest, run, files={"noise": str(noise)}), "/run/other.img")
    other.wait_console("^written")
    dying.destroy()
    site.without(dying)
    other.type("go on")
    assert other.wait_end() == "poweroff"
    assert f"sum {hashlib.sha256(noise.read_bytes()).hexdigest()}" in other.console()
    # All its grants were given back, or Xen would keep it.
    assert dying.state() == "gone"
    assert site.disks() == []


@on_one
@pytest.mark.parametrize("signal", ["TERM", "KILL"])
def test_a_backend_that_is_started_again_goes_on_with_the_guests_requests(
    site, guest, disk, noise, signal
):
    run = (
        "echo begins; for i in 0 1 2 3; do\n"
        "    dd if=/noise of=/dev/xvdb bs=256k seek=$((32 * i)) oflag=direct || echo not written\n"
        "done; echo sum $(dd if=/dev/xvdb bs=1M count=32 iflag=direct | sha256sum)\n"
    )
    device = site.xen.attach(disk)
    domain = site.create(linux_guest(guest, run, files={"noise": str(noise)}), device)
    domain.wait_console("^begins")
    site.stop(signal)
    site.start()
    assert domain.wait_end() == "poweroff"
    assert "not written" not in domain.console()
    wanted = noise.read_bytes() * 4
    assert f"sum {hashlib.sha256(wanted).hexdigest()}" in domain.console()


@on_one
def test_a_write_protected_disk_is_one_to_linux(site, guest, disk):
    run = "cat /sys/block/xvdb/ro; dd if=/dev/zero of=/dev/xvdb bs=4k count=1 || echo refused\n"
    domain = site.create(linux_guest(guest, run), site.xen.attach(disk), options=["--readonly"])
    assert domain.wait_end() == "poweroff"
    assert re.search("^1$", domain.console(), re.MULTILINE)
    assert "refused" in domain.console()


@on_each
def test_our_front_end_finds_it_in_order_and_hands_it_back(site, guest, target):
    before = target.read_bytes()
    domain = site.create(guest("pvh.yaml", cmdline=CHECK, disks=[]), site.xen.attach(target))
    assert domain.wait_end() == "poweroff", domain.console()
    assert "check passed" in domain.console()
    assert "disk xvdb: 512 MiB, writable" in domain.console()
    assert target.read_bytes() == before


@on_one
def test_a_resumed_guest_takes_the_disk_over_from_linux_and_dumps_to_it(site, guest, target):
    run = (
        f"{linux.kexec('/pvdump.bin', DUMP, file_mode=True)} || poweroff -f\n"
        "dd if=/dev/xvdb of=/dev/null bs=1M count=8 iflag=direct\n"
        f"{linux.crash()}\n"
    )
    spec = linux_guest(
        guest,
        run,
        files={"pvdump.bin": "image-bin"},
        on_soft_reset="preserve",
    )
    domain = site.create(spec, site.xen.attach(target))
    assert domain.wait_end() == "soft-reset"
    domain.resume()
    assert domain.wait_end() == "poweroff", domain.console()
    assert "pvdump: dump complete" in domain.console()
    assert read_superblock(target).state == superblock.COMPLETE
