"""Our block backend in a real dom0: Debian's blkfront and our own front end on its disks."""

import hashlib
import os
import re

import pytest
from blkback.dom0 import WAIT, Site
from fixtures.xens import ONE

from lab import linux
from pvdump.dump.info import read_superblock
from pvfw import superblock

pytestmark = pytest.mark.xen

MIB = 1 << 20
CHECK = "pvdump.run=check pvdump.disk=xvdb"
DUMP = "pvdump.then=poweroff pvdump.disk=xvdb"


EACH = ("bookworm oxenstored", "trixie xenstored")


@pytest.fixture
def at(at_prompt):
    """Gives a Debian guest at its prompt, on a Xen whose dom0 has our backend, and that dom0."""

    def start(place):
        domain = at_prompt(place, "pvh", pvdump=True)
        return domain, Site(domain.xen)

    return start


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


@pytest.mark.matrix(place=EACH)
def test_what_linux_writes_is_on_the_disk_and_reads_back(at, place, disk, noise):
    domain, site = at(place)
    site.give(domain, disk)
    domain.bring("xvdb", {"noise": noise})
    domain.run(
        "dd if=/noise of=/dev/xvdb bs=1M oflag=direct\n"
        "dd if=/noise of=/dev/xvdb bs=64k seek=256\n"
        "for i in 0 77 3 200 9 1023; do\n"
        "    dd if=/noise of=/dev/xvdb bs=4k count=1 skip=$i seek=$((8192 + i)) oflag=direct\n"
        "done 2>/dev/null\n"
        "sync\n"
        "echo 3 >/proc/sys/vm/drop_caches\n"
        "echo sum $(dd if=/dev/xvdb bs=1M count=48 iflag=direct | sha256sum)\n"
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


@pytest.mark.matrix(place=EACH)
def test_a_disk_is_taken_away_and_given_again_while_the_guest_runs(at, place, disk, noise):
    domain, site = at(place)
    site.give(domain, disk)
    domain.bring("xvdb", {"noise": noise})
    domain.run(
        "dd if=/noise of=/dev/xvdb bs=1M oflag=direct; echo written\n"
        "while [ -b /dev/xvdb ]; do usleep 50000; done; echo gone\n"
        f"{WAIT}"
        "echo sum $(dd if=/dev/xvdb bs=1M count=8 iflag=direct | sha256sum)\n"
    )
    domain.wait_console("^written")
    site.detach(domain)
    domain.wait_console("^gone")
    site.give(domain, disk)
    assert domain.wait_end() == "poweroff"
    assert f"sum {hashlib.sha256(noise.read_bytes()).hexdigest()}" in domain.console()


def test_a_guest_that_is_destroyed_under_load_leaves_nothing_and_hurts_no_other(
    at, guest, disk, noise, tmp_path
):
    other, site = at(*ONE)
    load = "echo load; while :; do dd if=/dev/zero of=/dev/xvdb bs=1M count=32 oflag=direct; done"
    fields = {"type": "pvh", "vcpus": 1, "memory": 160, "disks": [], "files": {}}
    dying = site.create(guest("linux-crash.yaml", run=WAIT + load, **fields), site.xen.attach(disk))
    dying.wait_console("records out")
    second = tmp_path / "second.img"
    with second.open("wb") as stream:
        stream.truncate(16 * MIB)
    site.give(other, second)
    other.bring("xvdb", {"noise": noise})
    other.run(
        "dd if=/noise of=/dev/xvdb bs=1M oflag=direct; echo written; read line </dev/hvc0\n"
        "echo sum $(dd if=/dev/xvdb bs=1M count=8 iflag=direct | sha256sum)\n"
    )
    other.wait_console("^written")
    dying.destroy()
    site.without(dying)
    other.type("go on")
    assert other.wait_end() == "poweroff"
    assert f"sum {hashlib.sha256(noise.read_bytes()).hexdigest()}" in other.console()
    # All its grants were given back, or Xen would keep it.
    assert dying.state() == "gone"
    assert site.disks() == []


@pytest.mark.parametrize("signal", ["TERM", "KILL"])
def test_a_backend_that_is_started_again_goes_on_with_the_guests_requests(at, disk, noise, signal):
    domain, site = at(*ONE)
    site.give(domain, disk)
    domain.bring("xvdb", {"noise": noise})
    domain.run(
        "echo begins; for i in 0 1 2 3; do\n"
        "    dd if=/noise of=/dev/xvdb bs=256k seek=$((32 * i)) oflag=direct || echo not written\n"
        "done; echo sum $(dd if=/dev/xvdb bs=1M count=32 iflag=direct | sha256sum)\n"
    )
    domain.wait_console("^begins")
    site.stop(signal)
    site.start()
    assert domain.wait_end() == "poweroff"
    assert "not written" not in domain.console()
    wanted = noise.read_bytes() * 4
    assert f"sum {hashlib.sha256(wanted).hexdigest()}" in domain.console()


def test_a_write_protected_disk_is_one_to_linux(at, disk):
    domain, site = at(*ONE)
    site.give(domain, disk, "--readonly")
    run = "cat /sys/block/xvdb/ro; dd if=/dev/zero of=/dev/xvdb bs=4k count=1 || echo refused\n"
    domain.run(WAIT + run)
    assert domain.wait_end() == "poweroff"
    assert re.search("^1$", domain.console(), re.MULTILINE)
    assert "refused" in domain.console()


@pytest.mark.matrix(place=EACH)
def test_our_front_end_finds_it_in_order_and_hands_it_back(at, place, guest, target):
    site = at(place)[1]
    before = target.read_bytes()
    domain = site.create(guest("pvh.yaml", cmdline=CHECK, disks=[]), site.xen.attach(target))
    assert domain.wait_end() == "poweroff", domain.console()
    assert "check passed" in domain.console()
    assert "disk xvdb: 512 MiB, writable" in domain.console()
    assert target.read_bytes() == before


def test_a_resumed_guest_takes_the_disk_over_from_linux_and_dumps_to_it(at, target):
    domain, site = at(*ONE)
    site.give(domain, target)
    domain.bring("xvdb", {"pvdump.bin": "image-bin"})
    domain.run(
        f"{linux.kexec('/pvdump.bin', DUMP, file_mode=True)} || poweroff -f\n"
        "dd if=/dev/xvdb of=/dev/null bs=1M count=8 iflag=direct\n"
        f"{linux.crash()}\n"
    )
    assert domain.wait_end() == "soft-reset"
    domain.resume()
    assert domain.wait_end() == "poweroff", domain.console()
    assert "pvdump: dump complete" in domain.console()
    assert read_superblock(target).state == superblock.COMPLETE


def test_the_commands_work_as_plain_programs(restored, guest, target):
    """The other tests have them started by a fork; see lab.python."""
    site = Site(restored(*ONE, pvdump=True), command="pvdump")
    domain = site.create(guest("pvh.yaml", cmdline=CHECK, disks=[]), site.xen.attach(target))
    assert domain.wait_end() == "poweroff", domain.console()
    assert "check passed" in domain.console()
    site.without(domain)
    assert site.disks() == []
    site.stop()
