"""A real Debian guest changes after `pvdump setup`: that is seen, and a panic after it is dumped.

A guest that is armed is restored for each test. Its last panic powers it off, and its target is
read on the host. A migration to the same host does what a save and a restore do.
"""

import re

import pytest
from fixtures import installed
from fixtures.installed import STAY, until
from fixtures.xens import ONE

from lab import packages
from lab.installed import Installed
from lab.xen import Xen
from pvdump.dump.collect import collect
from pvdump.dump.info import info

pytestmark = [pytest.mark.xen, pytest.mark.matrix(place=[], more={"place": ONE})]

MIB = 1 << 20
PLUGGED = 128  # MiB, a block of memory
JOURNAL = "journalctl -b -o cat -u pvdump-check.service"
# It does not fit into dom0's memory, and a guest's pages cannot be written to a 9p file at once.
SAVE = """\
mkfifo /run/pipe
cat </run/pipe >/job/saved &
xl save {domid} /run/pipe && wait && xl restore /job/saved && rm /job/saved /run/pipe
"""
# Of the packages of the host, those that the guest has not.
INSTALL = """\
cd /root/debs
for deb in *.deb; do
    dpkg-query -s "$(dpkg-deb -f $deb Package)" 2>/dev/null | grep -q '^Status:.* installed' &&
        rm $deb
done
echo update_initramfs=no >/etc/initramfs-tools/update-initramfs.conf  # it takes minutes
DEBIAN_FRONTEND=noninteractive dpkg -i *.deb
"""


@pytest.fixture
def guest(place, built, tmp_path):
    """An installed guest that is armed."""
    with Xen(*place.split(), ready=installed.armed("ext4", tmp_path)) as xen:
        xen.installed.run(STAY)
        assert ready(xen.installed)
        yield xen.installed


def ready(guest):
    """Whether `pvdump status` says that the guest is armed."""
    done = guest.run("pvdump status", check=False)
    return (done.code, done.output.startswith("armed\n")) == (0, True)


def rearmed(guest, why):
    """Wait until the check has armed anew by itself, for a reason."""
    until(guest, f"{JOURNAL} | grep -q 'arming anew: {why}'")
    until(guest, "[ $(systemctl is-active pvdump-check.service) = inactive ]")
    assert ready(guest), guest.run(JOURNAL).output


def dumped(guest, tmp_path):
    """Panic the guest; returns the MiB of memory that its dump is of, which is whole."""
    places = installed.extents(guest)
    guest.crash()
    assert guest.wait_end() == "poweroff", guest.console()[-3000:]
    said = re.search(r"pvdump: dump complete: (\d+) MiB", guest.console())
    assert said, guest.console()[-3000:]
    target = tmp_path / "target.img"
    target.write_bytes(installed.read(guest, places))
    assert "sysrq" in info(target)["cause"]
    assert collect(target, tmp_path / "vmcore").reason == ""
    return int(said[1])


def plug_memory(guest):
    """Give the guest more memory than it had when it booted."""
    domid, memory = guest.domid, guest.guest.memory + PLUGGED
    guest.run("echo online >/sys/devices/system/memory/auto_online_blocks")
    # `xl mem-set` does not go above maxmem=; the guest's driver is asked as xl asks it.
    guest.xen.sh(
        f"xl mem-max {domid} {memory + 8}\n"
        f"xenstore-write /local/domain/{domid}/memory/target {memory << 10}"
    )


def test_memory_and_a_vcpu_that_are_plugged_in_are_armed_for_and_dumped(guest, tmp_path):
    # The boot is no change.
    assert "Starting" not in guest.run(JOURNAL).output
    plug_memory(guest)
    rearmed(guest, "the guest.s memory has changed since")
    # The machine that Xen runs on has one CPU.
    guest.xen.sh(f"xl vcpu-set --ignore-host {guest.domid} 2")
    rearmed(guest, "the guest.s CPUs have changed since")
    guest.run("echo 1 >/sys/devices/system/cpu/cpu1/online")
    assert ready(guest)
    assert dumped(guest, tmp_path) > guest.guest.memory + PLUGGED - 32


def saved(guest):
    """Save the guest and restore it."""
    guest.xen.sh(SAVE.format(domid=guest.domid))
    guest.find_again()


@pytest.mark.parametrize("move", [saved, Installed.migrate], ids=["saved", "migrated"])
def test_a_guest_that_is_another_domain_is_still_armed(guest, tmp_path, move):
    before = guest.domid
    move(guest)
    assert guest.domid > before
    assert ready(guest)
    dumped(guest, tmp_path)


def test_kdump_tools_that_come_later_lose_the_place_at_the_next_setup(guest, tmp_path):
    (suite, _) = ONE[0].split()
    debs = packages.suite(suite).debs(["kdump-tools"])
    guest.put({f"/root/debs/{path.name}": path for path in debs})
    guest.run(INSTALL)
    # It finds a crash kernel, and loads none before the next boot.
    said = guest.run("pvdump doctor", check=False)
    assert (said.code, "kdump-tools" in said.output) == (1, True), said.output

    said = guest.run("pvdump setup --yes").output
    assert "kdump-tools loads no crash kernel any more" in said
    assert "the rule of kdump-tools is out of force" in said
    assert ready(guest), said
    # As after a change of memory; of both packages, the rules that are in force are run.
    guest.run("udevadm trigger --settle --action=online --subsystem-match=memory")
    until(guest, "[ $(systemctl is-active pvdump-hotplug.timer) = inactive ]")
    until(guest, "[ $(systemctl is-active pvdump-check.service) = inactive ]")
    assert ready(guest), guest.run(JOURNAL).output
    dumped(guest, tmp_path)
