"""A real Debian guest whose target is its swap: it is in use at the panic, and again after it."""

import json
import shlex

import pytest
from fixtures import installed
from fixtures.installed import DEB
from fixtures.xens import ONE

from lab.guest import Disk, xl_disk
from lab.xen import Xen
from tools import package

pytestmark = [pytest.mark.xen, pytest.mark.matrix(place=[], more={"place": ONE})]

VDEV, MIB = "xvdb", 768
SWAP = f"""\
until [ -b /dev/{VDEV} ]; do sleep 1; done
mkswap -L pages /dev/{VDEV}
echo 'LABEL=pages none swap sw 0 0' >>/etc/fstab
systemctl daemon-reload
swapon -a
"""
# More than the memory that is free: what a process does not need is swapped out.
FILL = """\
mkdir /run/much
mount -t tmpfs -o size=700m none /run/much
dd if=/dev/urandom of=/run/much/bytes bs=1M count=420 2>&1
"""
JOURNAL = "journalctl -b -o short-monotonic -u 'pvdump*'"
USED = f"awk '/{VDEV}/ {{ print $4 }}' /proc/swaps"  # KiB
# As "LABEL" begins: what blkid finds of the swap's header.
HEADER = f"blkid -p -o export /dev/{VDEV} | grep -E '^(LABEL|UUID|TYPE)='"


@pytest.fixture
def guest(place, built, tmp_path):
    """An installed guest that has the package's file and swaps to a disk of its own."""
    with Xen(*place.split(), ready=installed.installed("ext4")) as xen:
        guest, path = xen.installed, tmp_path / "swap.img"
        with path.open("wb") as stream:
            stream.truncate(MIB << 20)
        spec = "script=block," + xl_disk(Disk(VDEV, file=path), xen.attach(path))
        xen.sh(f"xl block-attach {guest.domid} {shlex.quote(spec)}")
        guest.run(SWAP)
        guest.put({DEB: package.build(tmp_path).deb})
        guest.run(f"apt-get -q install -y {DEB}")
        yield guest


def test_a_dump_over_swap_is_collected_before_the_guest_swaps_again(guest):
    header = guest.run(HEADER).output
    said = guest.run("pvdump setup --target swap --yes").output
    assert f"/dev/{VDEV}" in said
    guest.reboot()
    for command in ("doctor", "status"):
        done = guest.run(f"pvdump {command}", check=False)
        assert done.code == 0, done.output + guest.run(JOURNAL).output

    for number in (1, 2):
        guest.run(FILL)
        assert int(guest.run(USED).output) > 10 << 10, number
        guest.crash()
        guest.wait_console("pvdump: dump complete")
        guest.wait_boot()
        dumps = json.loads(guest.run("pvdump list --json").output)
        assert [dump["complete"] for dump in dumps] == [True] * number
        assert guest.run(USED).output == "0\n"
        assert guest.run(HEADER).output == header
        done = guest.run("pvdump status", check=False)
        assert (done.code, done.output.splitlines()[0]) == (0, "armed"), done.output

    guest.run("pvdump remove --yes")
    assert guest.run(HEADER).output == header
    assert guest.run(USED).output == "0\n"
