"""A real Debian guest boots through pvboot by its own GRUB files, as its packages made them."""

import re
from types import SimpleNamespace

import pytest
from fixtures import pvbooted
from fixtures.xens import XENS

from lab import packages
from tools import image

pytestmark = pytest.mark.xen

# Over all of them: each door, each kind of backend.
WAYS = [("pvh", "blkback"), ("firmware", "qdisk"), ("pvh", "ours")]
OTHERS = [("firmware", "blkback"), ("pvh", "qdisk"), ("firmware", "ours")]
each_way = pytest.mark.matrix(
    xen=XENS[:1],
    booted=WAYS[:1],
    more={"xen": XENS[1:], "booted": [*WAYS[1:], *OTHERS]},
    apart=True,
    together=True,
    indirect=["xen", "booted"],
)
# xl knows nothing of the disks of our backend: it starts and moves no domain with them.
each_of_xl = pytest.mark.matrix(
    xen=XENS[:1],
    booted=WAYS[:1],
    more={"xen": XENS[1:], "booted": [WAYS[1], *OTHERS[:2]]},
    apart=True,
    together=True,
    indirect=["xen", "booted"],
)
upgraded = pytest.mark.matrix(
    xen=XENS[:1], booted=[], more={"booted": WAYS[:2]}, together=True, indirect=["xen", "booted"]
)

# It appends blocks, each with its number, until /run/stop is there. As many as /run/acknowledged
# says are on the disk.
WRITER = """\
cat >/run/writer <<'END'
import os
out = os.open("/root/written", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
number = 0
while not os.path.exists("/run/stop"):
    os.write(out, number.to_bytes(8, "big") * 512)
    os.fsync(out)
    number += 1
    with open("/run/next", "w") as stream:
        stream.write(str(number))
    os.rename("/run/next", "/run/acknowledged")
os.rename("/run/acknowledged", "/run/last")
END
setsid python3 /run/writer >/run/writer.log 2>&1 </dev/null &
until [ -e /run/acknowledged ]; do sleep 0.1; done
"""
MORE = """\
until=$(($(cat /run/acknowledged) + {blocks}))
until [ "$(cat /run/acknowledged)" -ge $until ]; do sleep 0.1; done
"""
WRITTEN = """\
touch /run/stop
until [ -e /run/last ]; do sleep 0.1; done
cat /run/writer.log
echo 3 >/proc/sys/vm/drop_caches
python3 -c '
numbers = int(open("/run/last").read())
with open("/root/written", "rb") as stream:
    for number in range(numbers):
        assert stream.read(4096) == number.to_bytes(8, "big") * 512, number
    assert stream.read() == b""
print(numbers, "blocks")'
"""
BLOCKS = 20  # to be acknowledged after each move
# It does not fit into dom0's memory, and a guest's pages cannot be written to a 9p file at once.
SAVE = """\
mkfifo /run/pipe
cat </run/pipe >/job/saved &
xl save {domid} /run/pipe && wait && xl restore /job/saved && rm /job/saved /run/pipe
"""
NEWER = "linux-image-6.12-cloud-amd64"  # of bookworm, whose own is 6.1


@pytest.fixture(scope="module")
def pvboot():
    """The image as `./build.py image` builds it, where the lab's guests look for it."""
    return image.build(image.ROOT / "out", config=image.ROOT / "pvboot.yaml")


@pytest.fixture(scope="module")
def booted(request, pvboot, xen):
    """A guest that has booted in one of the ways. Gives: guest, door, backend, entry."""
    door, backend = request.param
    guest, entry = pvbooted.boot(xen, door, backend)
    yield SimpleNamespace(guest=guest, door=door, backend=backend, entry=entry)
    guest.destroy()


def release(guest):
    return guest.run("uname -r").output.strip()


@each_way
def test_debian_boots_as_its_packages_made_it(booted):
    guest = booted.guest
    assert booted.entry == "Debian GNU/Linux"
    assert guest.run("systemctl is-system-running").output == "running\n"
    # The file system's UUID is that of grub.cfg, the last console the one that pvboot wants.
    cmdline = guest.run("cat /proc/cmdline").output
    uuid = guest.run("findmnt -n -o UUID /").output.strip()
    assert cmdline.startswith(f"root=UUID={uuid} ro console=hvc0 "), cmdline
    tables = guest.run("dmesg | grep -o 'ACPI: RSDP.*'").output
    assert ("PVBOOT" in tables) == (booted.door == "firmware"), tables


@each_of_xl
def test_a_reboot_goes_through_pvboot_again(booted):
    guest = booted.guest
    boot = "cat /proc/sys/kernel/random/boot_id"
    before = guest.run(boot).output
    guest.reboot()
    assert guest.run(boot).output != before
    assert len(re.findall(pvbooted.READ, guest.console_log.read_text(), re.M)) == 2


@upgraded
def test_the_kernel_of_an_upgrade_is_taken_at_the_next_boot(booted):
    guest = booted.guest
    assert release(guest).startswith("6.1.")
    debs = packages.suite(guest.xen.suite).debs([NEWER])
    guest.put({f"/root/{p.name}": p for p in debs if p.name.startswith("linux-image-6.12")})
    guest.run("dpkg -i /root/linux-image-*.deb")
    assert "vmlinuz-6.12" in guest.run("cat /boot/grub/grub.cfg").output
    guest.reboot()
    assert release(guest).startswith("6.12.")
    assert guest.run("systemctl is-system-running").output == "running\n"


@each_of_xl
def test_saved_restored_and_migrated_while_it_writes_it_loses_nothing(booted):
    guest = booted.guest
    before = guest.domid
    guest.run(WRITER)
    guest.xen.sh(SAVE.format(domid=guest.domid))
    guest.find_again()
    guest.run(MORE.format(blocks=BLOCKS))
    guest.migrate()
    guest.run(MORE.format(blocks=BLOCKS))
    written = re.fullmatch(r"(\d+) blocks\n", guest.run(WRITTEN).output)
    assert written
    assert int(written[1]) >= 2 * BLOCKS
    assert guest.domid > before + 1
