"""A real Debian, as a person installs it: systemd, GRUB, packages. pvdump comes as its .deb."""

import pytest
from fixtures.xens import ONE

from tools import package

pytestmark = [pytest.mark.xen, pytest.mark.matrix(xen=ONE, indirect=["xen"])]

DEB = "/root/pvdump.deb"


@pytest.fixture(scope="session")
def deb(tmp_path_factory):
    return package.build(tmp_path_factory.mktemp("packages")).deb


def test_the_package_comes_and_goes_and_dumps_stay(xen, deb):
    guest = xen.boot_installed("ext4")
    guest.put({DEB: deb})
    guest.run(f"apt-get -q install {DEB}")
    assert guest.run("pvdump --version").output.startswith("pvdump ")
    guest.run("systemd-analyze --man=no verify /usr/lib/systemd/system/pvdump*")
    assert (
        guest.run("systemctl list-unit-files --state=enabled 'pvdump*'").output.count("pvdump") == 0
    )
    guest.run("mkdir -p /var/crash/one; echo dump >/var/crash/one/vmcore")
    guest.run("apt-get -q purge -y pvdump")
    assert guest.run("cat /var/crash/one/vmcore").output == "dump\n"
    left = guest.run("find / -xdev -name '*pvdump*' -not -path '/var/lib/dpkg/*'").output
    assert left == f"{DEB}\n"
    guest.destroy()
