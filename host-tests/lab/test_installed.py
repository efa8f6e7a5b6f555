"""The way of a person who owns a real Debian guest: systemd, GRUB, packages, and no dom0."""

import json
import re

import pytest
from fixtures import installed
from fixtures.installed import DEB
from fixtures.xens import XENS

from lab.xen import Xen
from tools import package

pytestmark = pytest.mark.xen

WAYS = [(XENS[0], "ext4"), (XENS[0], "lvm-xfs"), (XENS[2], "ext4")]
# What `pvdump remove` has to bring back.
STATE = """\
sha256sum /boot/grub/grub.cfg /etc/pvdump.yaml
ls /etc/default/grub.d /etc/sysctl.d /etc/udev/rules.d
sysctl kernel.panic_on_oops
systemctl list-unit-files --state=enabled --no-legend 'pvdump*'
"""


def pytest_generate_tests(metafunc):
    # It boots three times, in a minute each.
    ways = WAYS if metafunc.config.getoption("all") else WAYS[:1]
    metafunc.parametrize("way", ways, ids=" ".join)


@pytest.fixture
def guest(way, built, tmp_path):
    """An installed guest that has the package's file."""
    place, layout = way
    with Xen(*place.split(), ready=installed.installed(layout)) as xen:
        xen.installed.put({DEB: package.build(tmp_path).deb})
        yield xen.installed


def test_from_installing_the_package_to_reading_why_the_guest_died(guest):
    before = files(guest)
    guest.run(f"apt-get -q install -y {DEB}")
    enabled = guest.run("systemctl list-unit-files --state=enabled 'pvdump*'", check=False)
    assert "0 unit files listed." in enabled.output
    assert (
        guest.run("systemd-analyze --man=no verify /usr/lib/systemd/system/pvdump*.*").output == ""
    )
    red = guest.run("pvdump doctor", check=False)
    assert (red.code, "mend: pvdump setup && reboot" in red.output) == (1, True), red.output

    state = guest.run(STATE, check=False).output
    done = guest.run("pvdump setup --yes")
    assert guest.run(STATE, check=False).output != state
    assert done.output.splitlines()[-1].startswith("Reboot once"), done.output
    guest.reboot()
    for command in ("doctor", "status", "test"):
        done = guest.run(f"pvdump {command}", check=False)
        assert done.code == 0, done.output

    guest.run("echo 'keep: 1' >>/etc/pvdump.yaml; sync")
    for number in (1, 2):
        guest.crash()
        guest.wait_console("pvdump: dump complete")
        guest.wait_boot()
        (newest,) = json.loads(guest.run("pvdump list --json").output)[-1:]
        assert newest["complete"], number
        assert newest["reason"].startswith("sysrq: Trigger a crash"), newest
        names = guest.run(f"ls {newest['folder']}").output.split()
        assert {"vmcore", "log.txt", "report.txt", "report.html"} <= set(names), names
        done = guest.run("pvdump status", check=False)
        assert done.code == 0, done.output
    report = guest.run("pvdump report").output
    assert re.search("sysrq triggered crash", report), report
    assert "sysrq: Trigger a crash" in guest.run("pvdump log").output
    # The second one came after the first, which had to go.
    assert len(json.loads(guest.run("pvdump list --json").output)) == 1

    guest.run("sed -i '/^keep:/d' /etc/pvdump.yaml && pvdump remove --yes")
    assert guest.run(STATE, check=False).output == state
    assert "crashkernel" not in guest.run("cat /boot/grub/grub.cfg").output
    assert guest.run("cat /sys/kernel/kexec_crash_loaded").output == "0\n"
    assert guest.run("ls /var/crash").output.split() == [newest["folder"].rpartition("/")[2]]
    guest.run("apt-get -q purge -y pvdump")
    assert files(guest) - before == set()
    assert newest["folder"] in guest.run("ls -d /var/crash/*").output


def files(guest):
    """The names of pvdump's files in a guest, without the dumps."""
    found = guest.run("find / -xdev -name '*pvdump*' -not -path '/var/crash/*' -not -path '/run/*'")
    return set(found.output.split())
