"""The image as a guest's firmware on a real Xen: both doors, both xenstore servers, failures."""

import re

import pytest
from fixtures.xens import XENS

pytestmark = pytest.mark.xen

CHECK = "pvdump.run=check pvdump.disk=xvdb"


def disks(path, backend="blkback", **more):
    return [{"vdev": "xvdb", "file": str(path), "backend": backend, **more}]


def passed(domain, xenstored):
    """The self-check passed, and the handshake was used just where the server has it."""
    reason = domain.wait_end()
    said = domain.console()
    assert reason == "poweroff", said
    assert "check passed" in said
    plain = ("ring not used before", "indexes taken as found")
    first, second = ("connection made anew",) * 2 if xenstored == "oxenstored" else plain
    assert re.findall(r"xenstore: (\w+) client, \d+ bytes round trip, (.*)", said) == [
        ("first", first),
        ("second", second),
    ]


@pytest.mark.matrix(
    xen=XENS, door=["pvh", "firmware"], backend=["blkback", "qdisk"], indirect=["xen"]
)
def test_the_image_reaches_xenstore_and_disk_and_hands_both_back(xen, guest, target, door, backend):
    before = target.read_bytes()
    text = {"cmdline": CHECK} if door == "pvh" else {"run": f"#pvdump\n{CHECK}\n"}
    domain = xen.create(guest(f"{door}.yaml", disks=disks(target, backend), **text))
    passed(domain, xen.xenstored)
    assert "disk xvdb: 512 MiB, writable" in domain.console()
    assert target.read_bytes() == before


def lacking(domain, vdev):
    """Shell lines: the guest has one more disk, whose backend is not there."""
    home = f"/local/domain/{domain.domid}"
    node = f"{home}/device/vbd/{vdev}"
    keys = {
        "backend": f"/local/domain/0/backend/vbd/{domain.domid}/{vdev}",
        "backend-id": 0,
        "state": 1,
        "virtual-device": vdev,
        "device-type": "disk",
    }
    lines = [f"xenstore-write {node}/{key} {value}" for key, value in keys.items()]
    chmod = f"xenstore-chmod -r {node} n{domain.domid} r0"
    return "\n".join([f"xenstore-write {node} ''", *lines, chmod])


def test_disks_of_all_kinds_are_told_of_beside_each_other(xen, guest, target):
    three = [
        {"vdev": "xvda", "size": 16, "backend": "blkback"},
        {"vdev": "xvdb", "file": str(target), "backend": "qdisk"},
    ]
    before = target.read_bytes()
    domain = xen.create(guest("pvh.yaml", cmdline="pvdump.run=check", disks=three), paused=True)
    xen.sh(lacking(domain, 51744))
    xen.sh(f"xl unpause {domain.domid}")
    passed(domain, xen.xenstored)
    assert "disk xvda, 16 MiB: no dump target" in domain.console()
    assert "disk xvdb, 512 MiB: a dump target, ready" in domain.console()
    assert re.search(r"disk xvdc: device/vbd/51744, starting: .* after \d+ s", domain.console())
    assert target.read_bytes() == before


def test_without_anything_to_do_it_says_so_and_powers_off(xen, guest):
    domain = xen.create(guest("pvh.yaml", cmdline="", on_poweroff="preserve"))
    assert domain.wait_end() == "poweroff"
    assert "dump failed: no usable elfcorehdr= on the command line" in domain.console()
    home = f"/local/domain/{domain.domid}/data/pvdump"
    assert "no usable elfcorehdr=" in xen.sh(f"xenstore-read {home}/reason")
    assert xen.sh(f"xenstore-read {home}/state").strip() == "failed"
    domain.destroy()


@pytest.mark.matrix(xen=XENS, fault=["page", "ud", "python"], apart=True, indirect=["xen"])
def test_a_fault_is_reported_on_the_console_and_crashes_the_domain(xen, guest, fault):
    domain = xen.create(guest("pvh.yaml", cmdline=f"pvdump.fault={fault}"))
    assert domain.wait_end() == "crash"
    said = domain.console()
    assert "Traceback (most recent call last):" in said
    assert 'File "pvfw/main.py"' in said
    registers = re.search(r"^rip [0-9a-f]{16}", said, re.MULTILINE)
    assert bool(registers) == (fault != "python")
    # Port 0xE9 has the same, for a guest without a console.
    assert "Traceback" in domain.debug()


def test_a_read_only_disk_is_refused(xen, guest, target):
    line = CHECK + " pvdump.then=poweroff"
    domain = xen.create(guest("pvh.yaml", cmdline=line, disks=disks(target, readonly=True)))
    assert domain.wait_end() == "poweroff"
    assert "nothing on it was changed: the disk is read-only" in domain.console()
