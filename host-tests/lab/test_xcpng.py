"""XCP-ng's ways on a real Xen: its soft reset, and a disk as its backend offers it.

xenopsd.c resets a domain as XCP-ng's toolstack does, so the disks' backends are still connected to
the dead kernel's rings; tapback.py makes our backend one that offers what XCP-ng's does.
"""

import re
import shutil
from pathlib import Path

import pytest
from blkback.dom0 import STATUS, Site
from fixtures.xens import XENS

from lab import linux, program, python
from pvdump.dump.collect import collect
from pvdump.dump.info import read_superblock
from pvfw import superblock

pytestmark = pytest.mark.xen

HERE = Path(__file__).parent
DUMP = "pvdump.then=poweroff pvdump.disk=xvdb pvdump.level=0"
CONNECTED = "4"


class Tapback(Site):
    """A dom0 with our backend as tapback is."""

    def start(self):
        shutil.copyfile(HERE / "tapback.py", self.xen.job / "tapback.py")
        self.xen.sh(
            f"export PYTHONPATH={':'.join(f'{python.HOME}/{tree}' for tree in python.TREES)}\n"
            f"python3 /job/tapback.py blkback run --status {STATUS} >>/job/log/blkback 2>&1 &\n"
            "echo $! >/run/pid\n"
            f"until [ -S {STATUS} ]; do usleep 20000; done"
        )


def panic(domain):
    """Have a guest at its prompt use its xvdb, load the image and panic, and wait for that."""
    domain.bring("xvdb", {"pvdump.bin": "image-bin"})
    # The soft reset is the test's.
    domain.xen.sh("killall xl; exit 0")
    if domain.guest.closes_front_ends:
        domain.keep_front_ends()
    domain.run(
        f"{linux.kexec('/pvdump.bin', DUMP, file_mode=True)} || poweroff -f\n"
        "dd if=/dev/xvdb of=/dev/null bs=1M count=8 iflag=direct\n"
        f"{linux.crash()}\n"
    )
    domain.wait_console("Kernel panic")


def reset(domain):
    """Reset a guest that has panicked, as XCP-ng does."""
    xen = domain.xen
    shutil.copyfile(program.build(HERE / "xenopsd.c", xen.suite), xen.job / "xenopsd")
    xen.sh("chmod +x /job/xenopsd")
    xen.sh(f"until grep -q '^{domain.domid} 5$' /job/log/ends; do usleep 50000; done")
    xen.sh(f"/job/xenopsd {domain.domid}")


def state(domain, kind="vbd"):
    """The state of the backend of its xvdb."""
    path = f"/local/domain/0/backend/{kind}/{domain.domid}/51728/state"
    return domain.xen.sh(f"xenstore-read {path}").strip()


def assert_dumped(domain, target, tmp_path):
    # C xenstored does not tell of the next end of a domain that was only introduced again.
    domain.xen.sh(f"until xl list {domain.domid} | grep -q -e ' ---s'; do usleep 50000; done")
    assert "pvdump: dump complete" in domain.debug()
    assert read_superblock(target).state == superblock.COMPLETE
    assert collect(target, tmp_path / "vmcore").reason == ""


@pytest.mark.matrix(place=XENS, kind=["hvm", "pvh"], apart=True)
def test_a_guest_is_dumped_whose_disk_is_still_connected(at_prompt, place, kind, target, tmp_path):
    domain = at_prompt(place, kind)
    domain.attach("xvdb", target)
    panic(domain)
    assert state(domain) == CONNECTED
    reset(domain)
    assert_dumped(domain, target, tmp_path)


@pytest.mark.matrix(place=XENS[:2])
def test_a_disk_as_tapback_offers_it_has_the_dump(at_prompt, place, target, tmp_path):
    domain = at_prompt(place, "pvh", pvdump=True)
    Tapback(domain.xen).give(domain, target)
    panic(domain)
    assert state(domain, "pvdump_vbd") == CONNECTED
    reset(domain)
    assert_dumped(domain, target, tmp_path)
    assert re.search("segments 256 reduced to 11", domain.debug())
