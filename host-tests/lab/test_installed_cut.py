"""The power of a real Debian guest goes while it collects a dump: nothing is lost, nothing is half.

Of 20 moments three are real: dom0 destroys the guest when it has written so many sectors since
pvdump-collect.service began, and what its page cache had is gone; then it boots again. At the
others the process alone is killed (SIGKILL), in a guest that goes on, which takes seconds in place
of minutes; they are spread over the whole of a run.
"""

import json

import pytest
from fixtures import installed
from fixtures.installed import STAY
from fixtures.xens import ONE

from lab.xen import Xen
from pvdump.dump.info import read_superblock
from pvfw import superblock

pytestmark = [pytest.mark.xen, pytest.mark.matrix(place=[], more={"place": ONE})]

KILLED = 17
SECTORS = (64, 12_000, 36_000)  # that were written when the guest is destroyed
# The unit says on the console that it begins.
SAYING = """\
mkdir -p /etc/systemd/system/pvdump-collect.service.d
cat >/etc/systemd/system/pvdump-collect.service.d/lab.conf <<'END'
[Service]
ExecStartPre=/bin/sh -c 'echo lab: collecting >/dev/hvc0'
END
systemctl daemon-reload
"""
DESTROY = """\
count=$(echo /sys/bus/xen-backend/devices/vbd-{domid}-*/statistics/wr_sect)
begin=$(cat $count)
while [ $(($(cat $count) - begin)) -lt {sectors} ]; do usleep 20000; done
xl destroy {domid}
"""
# Arguments: how often; a file with the bytes of a target that holds a dump. Prints lines.
KILL = f"""\
import hashlib, os, random, shutil, subprocess, sys, time
from pathlib import Path
sys.path.insert(0, "/usr/lib/pvdump/python")
from pvdump.place.locate import locate

target, crash = Path("{installed.TARGET}"), Path("/var/crash")
times, dump = int(sys.argv[1]), Path(sys.argv[2]).read_bytes()
random.seed(1)

def begin():
    for folder in crash.glob("[2.]*"):
        shutil.rmtree(folder)
    place = locate(target)
    fd, at = os.open(place.disk.node, os.O_WRONLY), 0
    for first, sectors in place.extents:
        at += os.pwrite(fd, dump[at:at + sectors * 512], first * 512)
    os.fsync(fd)
    os.close(fd)
    assert at == len(dump)
    Path("/proc/sys/vm/drop_caches").write_text("3")

def collect():
    return subprocess.Popen(["pvdump", "collect"], stdout=subprocess.DEVNULL)

def found():
    return sorted((path.name, digest(path / "vmcore"), sorted(os.listdir(path)))
                  for path in crash.glob("[2.]*"))

def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else None

begin()
since = time.monotonic()
assert collect().wait() == 0
took, whole = time.monotonic() - since, found()
(name, _, _), = whole
for number in range(times):
    begin()
    process = collect()
    time.sleep((number + random.random()) / times * took)
    process.kill()
    process.wait()
    half = found()
    assert [each for each in half if each[0] == name] in ([], whole), half
    assert collect().wait() == 0
    assert found() == whole, found()
    print("killed", number, [each[0][:5] for each in half])
"""


@pytest.fixture
def guest(place, built, tmp_path):
    """An installed guest that is armed."""
    with Xen(*place.split(), ready=installed.armed("ext4", tmp_path)) as xen:
        yield xen.installed


def test_no_dump_is_lost_and_none_is_half_whenever_the_power_goes(guest, tmp_path):
    places = installed.extents(guest)
    guest.run(SAYING + STAY + "sync")
    guest.crash()
    assert guest.wait_end() == "poweroff", guest.console()[-3000:]
    target = tmp_path / "target.img"
    target.write_bytes(installed.read(guest, places))
    assert read_superblock(target).state == superblock.COMPLETE

    for sectors in SECTORS:
        guest.start()
        guest.wait_console("^lab: collecting")
        guest.xen.sh(DESTROY.format(domid=guest.domid, sectors=sectors))
    guest.start()
    guest.wait_boot()
    (dump,) = json.loads(guest.run("pvdump list --json").output)
    assert (dump["complete"], "sysrq" in dump["reason"]) == (True, True), dump
    names = guest.run("ls -A /var/crash").output.split()
    assert sorted(names) == [dump["folder"].rpartition("/")[2], "pvdump.img"]
    assert guest.run("pvdump status", check=False).code == 0

    script = tmp_path / "kill.py"
    script.write_text(KILL)
    guest.put({"/root/kill.py": script, "/root/target.img": target})
    done = guest.run(f"python3 /root/kill.py {KILLED} /root/target.img", check=False)
    assert done.code == 0, done.output
    assert done.output.count("killed") == KILLED, done.output
