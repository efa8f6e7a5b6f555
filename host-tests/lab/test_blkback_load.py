"""Our block backend under load, in a real dom0: what was acknowledged is there, whatever happens.

The load is pattern.c: it knows what must be on its disk, and says so. A guest that does what is
typed at its console has most of the disks, so that one boot serves all tests on a Xen.
"""

import itertools
import re
import time
import zlib
from pathlib import Path

import pytest
from blkback.dom0 import Site
from fixtures.xens import ONE

from lab import linux, nbd, packages, program, root, standstill
from lab.xen import Xen
from tools import image

pytestmark = [pytest.mark.xen, pytest.mark.xdist_group("blkback_load")]

HERE = Path(__file__).parent
MIB = 1 << 20
PROGRAMS = ["/usr/bin/fio", "/sbin/mke2fs", "/sbin/e2fsck"]
SHELL = """\
chmod +x /pattern
stty -F /dev/hvc0 -echo
exec 3</dev/hvc0
echo shell ready
while read -r line <&3; do eval "$line"; done
"""
LOAD = "mkfifo /tmp/{seed}; chmod +x /pattern; /pattern /dev/{vdev} {seed} {threads} <>/tmp/{seed}"
SEEDS = itertools.count(1)


class Load:
    """pattern on one disk of a guest that has a shell."""

    def __init__(self, domain, vdev, threads=4):
        self.domain, self.seed, self.writes = domain, next(SEEDS), 0
        domain.type(LOAD.format(seed=self.seed, vdev=vdev, threads=threads) + " &")

    def say(self, what):
        """Wait for a line of it."""
        found = self.domain.wait_console(rf"^pattern {self.seed}: ({what}|bad.*)")
        assert not found[1].startswith("bad"), found[0]
        return found

    def goes_on(self, writes=50):
        """Wait until so many more have been acknowledged."""
        told = re.findall(rf"^pattern {self.seed}: (\d+) writes", self.domain.console(), re.M)
        self.say(f"{int((told or [0])[-1]) + writes} writes")

    def end(self):
        """How often it lost its disk, and the CRC-32 of it."""
        self.domain.type(f"echo >/tmp/{self.seed}")
        found = self.say(r"good, \d+ writes, (\d+) times lost, sum (\w+)")
        return int(found[2]), int(found[3], 16)


class Nbdkit:
    """An NBD server in dom0 which holds what is written until it is flushed."""

    def __init__(self, xen, device):
        self.xen, self.device = xen, device
        self.start()

    def start(self):
        self.xen.sh(
            "export TMPDIR=/run; rm -f /run/nbd\n"
            f"nbdkit -P /run/nbd.pid -U /run/nbd --filter=cache file {self.device}"
        )

    def kill(self):
        self.xen.sh("kill -KILL $(cat /run/nbd.pid)")


@pytest.fixture(scope="module")
def site(built):
    with Xen(*ONE[0].split(), pvdump=True) as xen:
        nbd.put(xen)
        yield Site(xen)


@pytest.fixture(scope="module")
def pattern(site):
    return program.build(HERE / "pattern.c", site.xen.suite)


@pytest.fixture(scope="module")
def shell(site, guest, pattern):
    """A Debian guest (PVH) that runs what is typed at its console."""
    domain = site.xen.boot(
        guest(
            "linux-crash.yaml",
            type="pvh",
            run=SHELL,
            cmdline="console=hvc0 random.trust_cpu=on loglevel=4",
            vcpus=1,
            memory=512,
            extra={"tsc_mode": "native"},  # or Xen traps each look at the clock
            disks=[],
            files={"pattern": str(pattern)},
            programs=PROGRAMS,
            modules=["crc32c_generic", "ext4"],
        )
    )
    domain.wait_console("^shell ready")
    return domain


@pytest.fixture
def hostile(site, guest, tmp_path):
    """Makes guests, paused, that break the ring of a disk in dom0's memory as often as they can."""
    built = image.build(tmp_path, config=HERE / "hostile/image.yaml")

    def create():
        spec = guest("pvh.yaml", kernel=str(built.elf), cmdline="", disks=[])
        domain = site.xen.create(spec, paused=True)
        site.xen.sh("truncate -s 16M /run/hostile")
        site.attach(domain, "/run/hostile")
        return domain

    return create


@pytest.fixture
def file(tmp_path):
    """A raw file of the host."""

    def make(name="disk", mib=16):
        path = tmp_path / name
        with path.open("wb") as stream:
            stream.truncate(mib * MIB)
        return path

    return make


@pytest.fixture
def give(site, shell):
    """Gives the shell's guest a disk; takes all away in the end. Returns its name."""
    names = iter("bcdefghijklmnop")
    given = []

    def attach(sink):
        vdev = f"xvd{next(names)}"
        site.attach(shell, sink, vdev=vdev)
        given.append(vdev)
        shell.type(linux.wait_disk(vdev))
        return vdev

    yield attach
    for vdev in given:
        site.detach(shell, vdev=vdev)


def crc(path):
    return zlib.crc32(path.read_bytes())


def test_nothing_acknowledged_is_lost_when_the_backend_ends(site, shell, give, file):
    disk = file("disk")
    site.xen.sh("truncate -s 16M /run/file /run/loop; losetup /dev/loop0 /run/loop")
    nodes = (site.xen.attach(disk), "/run/file", "/dev/loop0")
    ends = end_twice(site, [Load(shell, give(sink)) for sink in nodes])
    assert [lost for lost, _ in ends] == [0, 0, 0]
    assert ends[0][1] == crc(disk)


def end_twice(site, loads):
    """End the backend and start it again under load, by KILL and by TERM."""
    for signal in ("KILL", "TERM"):
        for load in loads:
            load.goes_on()
        site.stop(signal)
        site.start()
    for load in loads:
        load.goes_on()
    return [load.end() for load in loads]


def test_nothing_acknowledged_is_lost_when_an_nbd_server_dies(site, shell, give, file):
    disk = file()
    server = Nbdkit(site.xen, site.xen.attach(disk))
    load = Load(shell, give("nbd+unix:///?socket=/run/nbd"))
    for _ in range(3):
        load.goes_on()
        server.kill()
        server.start()
    load.goes_on()
    assert load.end() == (0, crc(disk))


def test_fio_finds_what_it_wrote(shell, give, file, site):
    vdev = give(site.xen.attach(file()))
    shell.type(
        f"fio --name=verify --filename=/dev/{vdev} --direct=1 --rw=randwrite --bs=4k --size=3M "
        "--ioengine=libaio --iodepth=32 --verify=crc32c --verify_fatal=1 --minimal; echo fio $?"
    )
    assert shell.wait_console(r"^fio (\d+)")[1] == "0", shell.console()


def test_a_file_system_on_it_is_in_order_for_the_guest_and_for_the_host(site, shell, give, file):
    disk = file(mib=64)
    vdev = give(site.xen.attach(disk))
    shell.type(
        f"/sbin/mke2fs -q -t ext4 /dev/{vdev} && mkdir -p /mnt && "
        f"mount -t ext4 /dev/{vdev} /mnt && "
        "cp /usr/bin/fio /usr/lib/x86_64-linux-gnu/libc.so.6 /mnt && "
        "for i in $(seq 300); do mkdir /mnt/$i; echo $i >/mnt/$i/file; done && "
        "rm -r /mnt/1? /mnt/fio && umount /mnt && "
        f"mount -t ext4 /dev/{vdev} /mnt && cmp /mnt/libc.so.6 /usr/lib/x86_64-linux-gnu/libc.so.6 "
        "&& cat /mnt/*/file | wc -l | sed 's/^/files /' && umount /mnt && "
        f"e2fsck -f -n /dev/{vdev}; echo fsck $?"
    )
    assert shell.wait_console(r"^fsck (\d+)")[1] == "0", shell.console()
    assert re.search("^files 290", shell.console(), re.M)
    checked = root.run(packages.programs(site.xen.suite), "/sbin/e2fsck", "-f", "-n", str(disk))
    assert checked.returncode == 0, checked.stdout


def test_a_disk_is_taken_away_and_given_again_under_load(site, shell, give, file):
    disk = file()
    device = site.xen.attach(disk)
    vdev = give(device)
    load = Load(shell, vdev)
    for _ in range(3):
        load.goes_on()
        site.detach(shell, vdev=vdev)
        site.attach(shell, device, vdev=vdev)
    load.goes_on()
    assert load.end() == (3, crc(disk))


def test_a_disk_that_hangs_holds_up_no_other(site, shell, give, file):
    hanging, other = file("hanging"), file("other")
    loads = [Load(shell, give(site.xen.attach(disk))) for disk in (hanging, other)]
    for load in loads:
        load.goes_on()
    with standstill.disk(site.xen, hanging):
        loads[1].goes_on(200)
    for load in loads:
        load.goes_on()
    assert [load.end() for load in loads] == [(0, crc(hanging)), (0, crc(other))]


def test_a_guest_that_breaks_its_ring_again_and_again_hurts_no_other(
    site, shell, give, file, hostile
):
    disk = file()
    load = Load(shell, give(site.xen.attach(disk)))
    domain = hostile()
    began = time.monotonic()
    site.xen.sh(f"xl unpause {domain.domid}")
    domain.wait_console("^round 2$")
    load.goes_on(200)
    domain.wait_console("^round 10$")
    (row,) = [row for row in site.disks() if row["disk"].startswith(f"{domain.domid}/")]
    assert "req_prod" in row["error"]
    domain.destroy()
    site.without(domain)
    said = (site.xen.job / "log/blkback").read_text()
    lines = len(re.findall(rf" {domain.domid}/", said))
    assert 0 < lines <= 1 + time.monotonic() - began, said
    load.goes_on()
    assert load.end() == (0, crc(disk))


def test_a_guest_may_be_destroyed_at_any_moment(site, shell, give, file, hostile):
    disk = file()
    load = Load(shell, give(site.xen.attach(disk)))
    for moment in (None, "^round 1$", "^round 3$"):  # None: before it runs
        domain = hostile()
        if moment:
            site.xen.sh(f"xl unpause {domain.domid}")
            domain.wait_console(moment)
        domain.destroy()
        site.without(domain)
        load.goes_on()
    assert load.end() == (0, crc(disk))


def test_nothing_acknowledged_is_lost_when_the_backend_of_an_nbd_disk_ends(site, shell, file):
    disk = file()
    Nbdkit(site.xen, site.xen.attach(disk))
    site.attach(shell, "nbd+unix:///?socket=/run/nbd", vdev="xvdp")
    try:
        shell.type(linux.wait_disk("xvdp"))
        ((lost, sum_),) = end_twice(site, [Load(shell, "xvdp")])
    finally:
        # One that stands still would be in the way of whoever comes next.
        site.detach(shell, "--force", vdev="xvdp")
    assert (lost, sum_) == (0, crc(disk))
