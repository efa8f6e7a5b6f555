"""Targets that a real guest has while `pvdump prepare`, `info` and `collect` are run in dom0."""

import os

import pytest
from blkback.dom0 import Site
from fixtures.xens import ONE

from pvdump.dump.info import read_superblock
from pvfw import superblock

pytestmark = pytest.mark.xen


@pytest.fixture
def give(at_prompt):
    """Gives a guest a disk by a backend. Returns (Xen, dom0's name of the disk, take it away)."""

    def attach(backend, target):
        # QEMU runs beside an HVM guest from its boot on.
        domain = at_prompt(*ONE, "hvm" if backend == "qdisk" else "pvh", pvdump=True)
        xen = domain.xen
        if backend == "pvdump":
            site = Site(xen)
            site.give(domain, target)
            return xen, xen.devices[target], lambda: site.detach(domain)
        domain.attach("xvdb", target, backend)
        return xen, xen.devices[target], lambda: xen.sh(f"xl block-detach {domain.domid} xvdb")

    return attach


@pytest.mark.parametrize("backend", ["blkback", "pvdump", "qdisk"])
def test_a_disk_that_a_guest_has_is_prepared_only_when_it_is_taken_away(give, tmp_path, backend):
    disk = tmp_path / "precious.img"
    disk.write_bytes(os.urandom(8 << 20))
    before = disk.read_bytes()
    xen, device, take_away = give(backend, disk)
    prepare = f"lab-pvdump prepare --force {device} 2>&1; echo exit $?"
    said = xen.sh(prepare)
    assert "domain 1 has it as xvdb" in said
    assert said.endswith("exit 1\n")
    assert len(said.splitlines()) == 2
    assert disk.read_bytes() == before
    take_away()
    assert xen.sh(prepare).endswith("exit 0\n")
    xen.detach(disk)
    assert read_superblock(disk).state == superblock.READY


def test_a_target_that_a_guest_has_is_told_of_and_prepared_again(give, target):
    xen, device, take_away = give("blkback", target)
    assert "ready" in xen.sh(f"lab-pvdump info {device}")
    assert "is ready" in xen.sh(f"lab-pvdump prepare --again {device}")
    take_away()
    xen.detach(target)
    assert read_superblock(target).state == superblock.READY
