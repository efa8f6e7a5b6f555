"""A real Debian guest boots through pvboot by BLS, by a UKI, and by extlinux.conf."""

import pytest
from fixtures import pvbooted
from fixtures.pvbootdisks import Sources
from fixtures.xens import ONE, XENS

from tools import image

pytestmark = pytest.mark.xen

KINDS = {"bls": "BLS", "uki": "UKI", "extlinux": "extlinux"}


@pytest.fixture(scope="module")
def pvboot():
    """The image as `./build.py image` builds it, where the lab's guests look for it."""
    return image.build(image.ROOT / "out", config=image.ROOT / "pvboot.yaml")


@pytest.mark.matrix(
    xen=ONE,
    kind=["uki"],
    door=["pvh"],
    more={"xen": XENS[2:], "kind": ["bls", "extlinux"], "door": ["firmware"]},
    apart=True,
    indirect=["xen"],
)
def test_debian_boots_by_it(pvboot, xen, tmp_path, kind, door):
    disks = Sources(xen.suite, tmp_path)
    guest, entry = pvbooted.boot(xen, door, disk=lambda path: disks.make(kind, path))
    assert entry == f"Debian by {KINDS[kind]}"
    cmdline = guest.run("cat /proc/cmdline").output.split()
    assert cmdline[0] == "root=/dev/xvda2"
    assert cmdline[-2:] == [f"lab.source={kind}", "console=hvc0"]
    assert guest.run("systemctl is-system-running").output == "running\n"
    guest.destroy()
