"""Linux is killed while xenstore messages are half in its ring; pvdump takes the ring over.

Nothing here is left to chance: the xenstored in dom0 stands still while the guest's kernel fills
the ring, the guest has one CPU and panics only when dom0 has seen the ring full, and only then
xenstored goes on. A write that is longer than the ring is then half written, and the answer to a
read that was whole is half written as well, since nobody takes it.
"""

import re
import struct

import pytest
from fixtures.xens import XENS

from lab import linux
from pvdump.dump.info import read_superblock
from pvfw import superblock
from xenpv import abi

pytestmark = pytest.mark.xen

NODE = b"data/takeover\0"
RING = abi.XENSTORE_RING_SIZE
CHECK = "pvdump.run=check pvdump.then=poweroff pvdump.disk=xvdb"
DUMP = "pvdump.then=poweroff pvdump.disk=xvdb"


def packet(type, payload):
    return struct.pack("<IIII", type, 1, 0, len(payload)) + payload


PACKETS = {
    "fill": packet(abi.XS_WRITE, NODE + bytes(range(250)) * 8),  # 2000 bytes: under every quota
    "read": packet(abi.XS_READ, NODE),
    "write": packet(abi.XS_WRITE, NODE + bytes(range(250)) * 12),
    # These leave room in the ring for the header of a request, and for that and half a path.
    "rest16": packet(abi.XS_WRITE, (NODE + bytes(RING))[: RING - 16 - 16]),
    "rest20": packet(abi.XS_WRITE, (NODE + bytes(RING))[: RING - 16 - 20]),
    "rm": packet(abi.XS_RM, NODE),
}


@pytest.fixture
def killed(at_prompt, target, tmp_path):
    """Panics a Debian guest with packets under way; gives its handle."""

    def kill(place, kind, packets, line):
        for name, data in PACKETS.items():
            (tmp_path / name).write_bytes(data)
        total = sum(len(PACKETS[name]) for name in packets.split())
        domain = at_prompt(place, kind)
        domain.attach("xvdb", target)
        files = {name: tmp_path / name for name in PACKETS}
        domain.bring("xvdb", {"pvdump.bin": "image-bin", **files})
        domain.run(
            f"{linux.kexec('/pvdump.bin', line, file_mode=True)} || poweroff -f\n"
            "exec 5<>/dev/xen/xenbus\n"
            "cat /fill >&5; dd bs=16 count=1 <&5 >/dev/null 2>&1\n"
            "exec 6</dev/hvc0\n"
            "echo ready; read line <&6; read line <&6\n"
            f"for packet in {packets}; do cat /$packet >&5; done\n"
            "read line <&6\n"
            f"{linux.crash()}\n"
        )
        domain.wait_console("^ready")
        domain.type("stall")
        with domain.xen.stalled():
            domain.type("send")
            domain.wait_ring(lambda ring: ring.requests == min(total, RING))
            domain.type("panic")
            domain.wait_console("Kernel panic")
        return domain

    return kill


@pytest.mark.matrix(place=XENS, packets=["write", "read read", "rest16 read", "rest20 rm"])
def test_a_resumed_guest_takes_a_ring_over_in_the_middle_of_a_message(killed, place, packets):
    domain = killed(place, "pvh", packets, CHECK)
    resume(domain, packets)
    said = domain.console()
    assert re.search(f"first client, .*, {way(place, packets)}$", said, re.MULTILINE)
    assert "check passed" in said


@pytest.mark.matrix(place=XENS)
def test_a_resumed_guest_is_dumped(killed, target, place):
    packets = "read write read"
    domain = killed(place, "pvh", packets, DUMP)
    resume(domain, packets)
    dumped(domain, target)


@pytest.mark.matrix(place=XENS)
def test_a_soft_reset_guest_takes_a_ring_over_in_the_middle_of_a_message(killed, place):
    domain = killed(place, "hvm", "read write read", CHECK)
    assert domain.wait_end() == "poweroff"
    assert "check passed" in domain.console()


def resume(domain, packets):
    """Let a guest that has panicked go on as it is, to the end of its crash kernel."""
    assert domain.wait_end() == "soft-reset"
    if packets.startswith("read"):
        domain.wait_ring(lambda ring: ring.replies == RING)
    domain.resume()
    assert domain.wait_end() == "poweroff"


def dumped(domain, target):
    assert "pvdump: dump complete" in domain.console()
    assert read_superblock(target).state == superblock.COMPLETE


def way(place, packets):
    """How the first client of a resumed guest gets into step, as a pattern."""
    if "oxenstored" in place:
        return "connection made anew"
    # Half a request is completed; the answer to a read is just taken away.
    half = "" if packets == "read read" else r", a request completed with \d+ bytes"
    return f"indexes taken as found{half}"


def test_a_guest_that_was_booted_with_its_disk_is_dumped(xen, guest, target):
    """A boot of each Xen's own, where the other tests go on from a saved one."""
    run = f"{linux.kexec('/pvdump.bin', DUMP, file_mode=True)} || poweroff -f\n{linux.crash()}\n"
    disks = [{"vdev": "xvdb", "file": str(target)}]
    fields = {"type": "pvh", "vcpus": 1, "memory": 256, "on_soft_reset": "preserve"}
    domain = xen.boot(guest("linux-crash.yaml", run=run, disks=disks, **fields))
    assert domain.wait_end() == "soft-reset"
    domain.resume()
    assert domain.wait_end() == "poweroff"
    dumped(domain, target)
