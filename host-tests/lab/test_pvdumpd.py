"""pvdumpd in the dom0 of a real Xen: guests of xl panic, and their crash kernels dump."""

import json

import pytest
from fixtures.xens import ONE, XENS

from lab import linux
from pvdump.dump.collect import collect
from pvdump.dump.info import read_superblock
from pvfw import superblock

pytestmark = pytest.mark.xen

DUMP = "pvdump.disk=xvdb pvdump.level=0 pvdump.then="
STATE = "/run/pvdumpd-state"
NOBODY = 65534
XVDB = 51728


class Pvdumpd:
    """A dom0 in which pvdumpd runs, or does not; without root's rights but for its helper."""

    def __init__(self, xen):
        self.xen = xen

    def start(self):
        self.xen.sh(
            "rm -f /run/pvdumpd/daemon/status /run/pid\n"
            f"LAB_PIDFILE=/run/pid lab-pvdump daemon --user {NOBODY} --state {STATE} "
            ">>/job/log/pvdumpd 2>&1 &\n"
            "until [ -S /run/pvdumpd/daemon/status ] && [ -s /run/pid ]; do usleep 20000; done"
        )

    def kill(self):
        self.xen.sh(
            "exe=/proc/$(cat /run/pid)/exe; kill -KILL $(cat /run/pid)\n"
            "while [ -e $exe ]; do usleep 20000; done"
        )

    def events(self):
        lines = self.xen.sh(f"lab-pvdump events --json --state {STATE}").splitlines()
        return [json.loads(line) for line in lines]

    def names(self):
        return [event["event"] for event in self.events()]

    def wait(self, name):
        """Wait until an event is written down. Returns it."""
        self.xen.sh(
            f'until grep -q \'"event": "{name}"\' {STATE}/events.jsonl 2>/dev/null; do\n'
            "    usleep 50000\n"
            "done"
        )
        return next(event for event in self.events() if event["event"] == name)


def arm(domain, target):
    """Give a guest at its prompt a disk for its dump; see panic()."""
    domain.attach("xvdb", target)
    domain.bring("xvdb", {"pvdump.bin": "image-bin"})


def panic(domain):
    """Have a guest at its prompt use its xvdb, load the image, and panic."""
    domain.run(
        f"{linux.kexec('/pvdump.bin', f'{DUMP}poweroff', file_mode=True)} || poweroff -f\n"
        "dd if=/dev/xvdb of=/dev/null bs=1M count=8 iflag=direct\n"
        f"{linux.crash()}\n"
    )


def assert_dumped(target, tmp_path):
    assert read_superblock(target).state == superblock.COMPLETE
    assert collect(target, tmp_path / "vmcore").reason == ""


@pytest.mark.matrix(place=ONE, more={"place": XENS[1:]})
def test_a_pvh_guest_of_xl_panics_into_a_whole_dump(at_prompt, place, target, tmp_path):
    domain = at_prompt(place, "pvh", pvdump=True)
    pvdumpd = Pvdumpd(domain.xen)
    pvdumpd.start()
    arm(domain, target)
    panic(domain)
    end = pvdumpd.wait("end")
    assert pvdumpd.names() == ["panic", "reset", "end"]
    # Its console goes on.
    assert "pvdump: dump complete" in domain.console()
    assert_dumped(target, tmp_path)
    # What its configuration says of a poweroff was done.
    assert end["by"] == "xl" or (end["reason"], end["action"]) == (0, "destroy")
    domain.wait_until(lambda: domain.state() == "gone", "its end")


@pytest.mark.matrix(place=[], more={"place": ONE})
def test_a_guest_that_went_down_before_the_daemon_started_is_taken_up(
    at_prompt, place, target, tmp_path
):
    domain = at_prompt(place, "pvh", pvdump=True)
    pvdumpd = Pvdumpd(domain.xen)
    arm(domain, target)
    panic(domain)
    assert domain.wait_end() == "soft-reset"
    pvdumpd.start()
    end = pvdumpd.wait("end")
    assert (end["reason"], end["action"], end["by"]) == (0, "destroy", "pvdumpd")
    assert_dumped(target, tmp_path)
    assert domain.state() == "gone"


@pytest.mark.matrix(place=[], more={"place": XENS[1:2]})
def test_a_daemon_that_is_killed_again_and_again_loses_nothing(at_prompt, place, target, tmp_path):
    domain = at_prompt(place, "pvh", pvdump=True)
    pvdumpd = Pvdumpd(domain.xen)
    arm(domain, target)
    pvdumpd.start()
    panic(domain)
    while "end" not in pvdumpd.names():
        pvdumpd.kill()
        pvdumpd.start()
    assert_dumped(target, tmp_path)
    assert pvdumpd.names().count("end") == 1
    assert domain.console().count("pvdump: dump complete") == 1
    domain.wait_until(lambda: domain.state() == "gone", "its end")


@pytest.mark.matrix(place=ONE, helped=[True], more={"place": XENS[1:], "helped": [False]})
def test_libxl_does_not_wait_for_an_hvm_guest_s_disks(at_prompt, place, helped, target, tmp_path):
    domain = at_prompt(place, "hvm", pvdump=True)
    domain.keep_front_ends()
    pvdumpd = Pvdumpd(domain.xen)
    if helped:
        pvdumpd.start()
    arm(domain, target)
    panic(domain)
    assert domain.wait_end() == "poweroff"
    assert_dumped(target, tmp_path)
    # xl still writes to the log that it had open when the machine was saved.
    log = domain.xen.sh("cat /run/log.old/xen/xl-prompt.log")
    assert ("unable to remove device" in log) == (not helped), log
    if helped:
        closed = [event["device"] for event in pvdumpd.events() if event["event"] == "closed"]
        assert closed == [f"/local/domain/0/backend/vbd/{domain.domid}/{XVDB}"]


# A guest that has a disk xvdc marks it, and panics; when it finds the mark, it has been restarted.
AGAIN = f"""\
until [ -b /dev/xvdc ]; do usleep 50000; done
if grep -q marked /dev/xvdc; then echo restarted; while :; do sleep 9; done; fi
echo marked | dd of=/dev/xvdc bs=512 count=1 conv=sync oflag=direct
{linux.kexec("/pvdump.bin", f"{DUMP}reboot", file_mode=True)} || poweroff -f
{linux.crash()}
"""


@pytest.mark.matrix(place=[], more={"place": ONE})
def test_a_guest_is_restarted_as_it_was_with_the_disk_plugged_in_meanwhile(
    restored, guest, place, target, tmp_path
):
    xen = restored(place, pvdump=True)
    pvdumpd = Pvdumpd(xen)
    pvdumpd.start()
    disks = [{"vdev": "xvdb", "file": str(target)}]
    fields = {"type": "pvh", "vcpus": 1, "memory": 160, "on_soft_reset": "preserve"}
    fields["extra"] = {"tsc_mode": "native"}  # it boots in half the time
    files = {"pvdump.bin": "image-bin"}
    spec = guest(
        "linux-crash.yaml", run=AGAIN, disks=disks, files=files, on_reboot="restart", **fields
    )
    domain = xen.boot(spec)
    xen.sh(f"lab-pvdump enable /job/guest/{spec.name}/xl.cfg")
    uuid = xen.sh(f"xl vm-list | grep ' {domain.domid} '").split()[0]
    mark = tmp_path / "mark.img"
    mark.write_bytes(bytes(1 << 20))
    device = xen.attach(mark)
    xen.sh(f"xl block-attach {domain.domid} format=raw,vdev=xvdc,access=rw,target={device}")
    end = pvdumpd.wait("end")
    assert (end["reason"], end["action"]) == (1, "restart")
    assert_dumped(target, tmp_path)
    domain.wait_console("^restarted")
    assert xen.sh(f"xl vm-list | grep {uuid}").split()[2] == spec.name
    assert xen.sh(f"xl domid {spec.name}").strip() != str(domain.domid)
