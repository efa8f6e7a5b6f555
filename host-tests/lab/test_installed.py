"""The way of a person who owns a real Debian guest: systemd, GRUB, packages, and no dom0."""

import json
import re

import pytest
from fixtures.xens import XENS

from lab.xen import Xen
from tools import package

pytestmark = pytest.mark.xen

DEB = "/root/pvdump.deb"
WAYS = [(XENS[0], "ext4")]


def pytest_generate_tests(metafunc):
    # It boots four times, in one and a half minutes each.
    metafunc.parametrize("way", WAYS if metafunc.config.getoption("all") else [], ids=" ".join)


@pytest.fixture
def guest(way, built, tmp_path):
    """An installed guest that has the package's file."""
    place, layout = way
    with Xen(*place.split(), restored=True) as xen:
        booted = xen.boot_installed(layout)
        booted.put({DEB: package.build(tmp_path).deb})
        yield booted


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

    done = guest.run("pvdump setup --yes")
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

    guest.run("apt-get -q purge -y pvdump")
    assert "crashkernel" not in guest.run("cat /boot/grub/grub.cfg").output
    assert guest.run("cat /sys/kernel/kexec_crash_loaded").output == "0\n"
    assert files(guest) - before == set()
    assert newest["folder"] in guest.run("ls -d /var/crash/*").output


def files(guest):
    """The names of pvdump's files in a guest, without the dumps."""
    found = guest.run("find / -xdev -name '*pvdump*' -not -path '/var/crash/*' -not -path '/run/*'")
    return set(found.output.split())
