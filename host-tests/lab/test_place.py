"""A real guest arms a file of its own, dumps to it, and finds it whole when it boots again."""

import re
import struct

import pytest
from fixtures.xens import ONE

from lab import linux, python

pytestmark = [pytest.mark.xen, pytest.mark.matrix(xen=ONE, indirect=["xen"])]

MIB = 1 << 20
CHECKS = 7  # of `pvdump test`
# Begin and length of the disk's partitions, MiB.
PARTS = ((1, 500), (501, 500))
PROGRAMS = [
    *("/sbin/mke2fs", "/sbin/e2fsck", "/sbin/mkfs.xfs", "/sbin/xfs_repair"),
    *("/sbin/lvm", "/sbin/dmsetup"),
]
# busybox has an mke2fs of its own, which comes first in PATH.
UNPACK = """\
for name in python pvdump; do (cd / && cpio -idu </$name.cpio 2>/dev/null); rm /$name.cpio; done
mkdir -p /mnt /run
LVM="activation{udev_sync=0 udev_rules=0}"
"""
# Each kind: shell lines that make the file system, those that find it again, and the check.
KINDS = {
    "ext4 on a partition": (
        "/sbin/mke2fs -q -t ext4 -b 4096 /dev/xvdb1; DEV=/dev/xvdb1",
        "DEV=/dev/xvdb1",
        "/sbin/e2fsck -f -n",
        "ext4",
    ),
    "xfs on LVM": (
        "lvm pvcreate -q /dev/xvdb2; lvm vgcreate -q vg /dev/xvdb2\n"
        'lvm lvcreate -q --config "$LVM" -Wn -Zn -L 400M -n dump vg; lvm vgmknodes\n'
        "DEV=/dev/mapper/vg-dump; /sbin/mkfs.xfs -q $DEV",
        'lvm vgchange -q --config "$LVM" -ay vg; lvm vgmknodes; DEV=/dev/mapper/vg-dump',
        "/sbin/xfs_repair -n",
        "xfs",
    ),
}
CRASH = """\
mount -t {kind} $DEV /mnt || echo lab: mount failed
dd if=/dev/urandom of=/mnt/other bs=1M count=8 2>/dev/null
pvdump prepare --file /mnt/pvdump.img --size 96M || poweroff -f
sha256sum /mnt/other >/mnt/sum
sync
OPTIONS="--target file:/mnt/pvdump.img --image /pvdump.bin --then poweroff"
pvdump arm $OPTIONS; echo lab: arm $?
pvdump arm --check $OPTIONS; echo lab: recheck $?
pvdump disarm; echo lab: disarm $? $(cat /sys/kernel/kexec_crash_loaded)
pvdump test $OPTIONS; echo lab: test $?
pvdump status; echo lab: status $?
cp /mnt/other /mnt/late
"""
AGAIN = """\
mount -t {kind} $DEV /mnt || echo lab: mount failed
pvdump info /mnt/pvdump.img
sha256sum -c /mnt/sum
pvdump collect --log /mnt/pvdump.img -
pvdump collect /mnt/pvdump.img /run/vmcore; echo lab: collect $?
pvdump prepare --again /mnt/pvdump.img; echo lab: again $?
umount /mnt
{check} $DEV >/run/check 2>&1; echo lab: check $?
cat /run/check
"""


SWAP_CRASH = """\
mkswap {disk} >/dev/null
pvdump prepare --swap {disk} && swapon {disk} || poweroff -f
pvdump arm --print --out /run/blob --target file:{disk} --image /pvdump.bin \
    --then poweroff >/run/load || poweroff -f
sh /run/load || poweroff -f
mount -t tmpfs -o size=620m none /mnt
dd if=/dev/urandom of=/mnt/large bs=1M count=560 2>/dev/null
grep {disk} /proc/swaps | sed 's/^/lab: used /'
"""
SWAP_AGAIN = """\
pvdump collect --log {disk} -
pvdump collect {disk} /run/vmcore; echo lab: collect $?
pvdump prepare --again {disk}; echo lab: again $?
swapon {disk}; echo lab: swapon $?
"""


@pytest.fixture
def disk(tmp_path):
    """A disk with two partitions."""
    path = tmp_path / "disk.img"
    table = b"".join(
        struct.pack("<B3sB3sII", 0, bytes(3), 0x83, bytes(3), begin * 2048, length * 2048)
        for begin, length in PARTS
    )
    with path.open("wb") as stream:
        stream.write(bytes(446) + table.ljust(64, b"\0") + b"\x55\xaa")
        stream.truncate((PARTS[-1][0] + PARTS[-1][1]) * MIB)
    return path


@pytest.fixture
def boot(xen, guest, disk):
    """A function that boots a guest with Python and pvdump, and returns its console at its end."""
    base, ours = python.archives(xen.suite)
    fields = {
        "memory": 640,
        "programs": PROGRAMS,
        "modules": ["ext4", "xfs", "dm-mod"],
        "disks": [{"vdev": "xvdb", "file": str(disk)}],
        "files": {"pvdump.bin": "image-bin", "python.cpio": str(base), "pvdump.cpio": str(ours)},
    }

    def run(*lines):
        domain = xen.boot(guest("linux-crash.yaml", run="\n".join([UNPACK, *lines]), **fields))
        assert domain.wait_end() == "poweroff"
        return domain.console()

    return run


@pytest.mark.matrix(kind=list(KINDS)[:1], more={"kind": list(KINDS)[1:]})
def test_a_dump_to_a_file_is_found_at_the_next_boot_and_the_file_system_is_whole(boot, kind):
    make, find, check, name = KINDS[kind]
    said = boot(make, CRASH.format(kind=name), linux.crash(0))
    assert "pvdump: dump complete" in said, said[-3000:]
    for line in ("arm 0", "recheck 0", "disarm 0 0", "test 0", "status 0"):
        assert f"lab: {line}" in said, said[-6000:]
    # Each check could look at what it is for.
    assert len(re.findall(r"^ok      ", said, re.MULTILINE)) == CHECKS, said[-6000:]
    expected = float(re.search(r"would take ([\d.]+) MiB now", said)[1])
    said = boot(find, AGAIN.format(kind=name, check=check))
    for line in ("/mnt/other: OK", "sysrq: Trigger a crash", "lab: collect 0", "lab: again 0"):
        assert line in said, said[-3000:]
    assert "lab: check 0" in said, said[-3000:]
    size = float(re.search(r"^written +[\d.]+ of ([\d.]+) MiB", said, re.MULTILINE)[1])
    assert expected == pytest.approx(size, rel=0.25)


@pytest.mark.matrix(swap=[], more={"swap": ["/dev/xvdb2"]})
def test_a_dump_over_swap_in_use_is_collected_before_the_next_swapon(boot, swap):
    said = boot(SWAP_CRASH.format(disk=swap), linux.crash(0))
    assert "pvdump: dump complete" in said, said[-3000:]
    used = re.search(r"lab: used \S+\s+partition\s+\d+\s+(\d+)", said)
    assert int(used[1]) > 10 << 10, said[-3000:]
    said = boot(SWAP_AGAIN.format(disk=swap))
    for line in ("sysrq: Trigger a crash", "lab: collect 0", "lab: again 0", "lab: swapon 0"):
        assert line in said, said[-3000:]
