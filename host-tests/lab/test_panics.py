"""A Linux guest dies of each kind of fault; there is a dump, and it says which it was."""

import json
import re

import pytest
from fixtures import oopsmodule
from fixtures.xens import ONE

from lab import linux, packages, standstill
from lab.kernel import Kernel
from pvdump import cli
from pvdump.dump.collect import collect_log
from pvdump.dump.info import info, read_superblock
from pvfw import superblock

pytestmark = pytest.mark.xen
MIB = 1 << 20


@pytest.fixture
def armed(at_prompt, target, tmp_path):
    """A guest with the image loaded and the module oops.ko; gives it and the target."""
    (suite, _) = ONE[0].split()
    (_, other) = Kernel(packages.guest(suite)).modules(["dummy"])[-1]
    domain = at_prompt(*ONE, "hvm")
    domain.attach("xvdb", target)
    module = oopsmodule.make(tmp_path, other)
    domain.bring("xvdb", {"oops.ko": module, "pvdump.bin": "image-bin"})
    domain.type(linux.kexec("/pvdump.bin", "pvdump.disk=xvdb pvdump.then=poweroff", True))
    return domain


def oops(domain, tmp_path):
    domain.type("echo 1 >/proc/sys/kernel/panic_on_oops; insmod /oops.ko")


def hung_task(domain, tmp_path):
    disk = tmp_path / "hanging.img"
    disk.write_bytes(bytes(MIB))
    domain.attach("xvdc", disk)
    domain.type(linux.wait_disk("xvdc"))
    domain.type("echo 1 >/proc/sys/kernel/hung_task_panic")
    domain.type("echo 5 >/proc/sys/kernel/hung_task_timeout_secs; echo ready")
    domain.wait_console("^ready$")
    with standstill.disk(domain.xen, disk):
        # A task that waits for a read can be killed, and is no hung one.
        domain.type("dd if=/dev/zero of=/dev/xvdc bs=4k count=1 conv=fsync &")
        domain.wait_console("Kernel panic - not syncing")


def nmi(domain, tmp_path):
    domain.type("echo 1 >/proc/sys/kernel/unknown_nmi_panic; echo ready")
    domain.wait_console("^ready$")
    domain.xen.sh(f"xl trigger {domain.domid} nmi")


def hvmcrash(domain, tmp_path):
    domain.type("echo 1 >/proc/sys/kernel/panic_on_oops; echo ready")
    domain.wait_console("^ready$")
    domain.xen.sh(f"xen-hvmcrash {domain.domid}")


FORMS = {"json": ["--json"], "text": [], "html": ["--html", "-"]}
FAULTS = {
    oops: r"BUG: kernel NULL pointer dereference",
    hung_task: r"Kernel panic - not syncing: hung_task: blocked tasks",
    nmi: r"Kernel panic - not syncing: NMI: Not continuing",
    hvmcrash: r"BUG: unable to handle page fault",
}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda each: each.__name__)
def test_a_guest_that_dies_of_a_fault_is_dumped_and_the_dump_says_of_which(
    armed, target, tmp_path, fault, capfd
):
    fault(armed, tmp_path)
    assert armed.wait_end() == "poweroff", armed.console()[-2000:]
    assert read_superblock(target).state == superblock.COMPLETE
    assert collect_log(target, tmp_path / "log", False) == []
    log = (tmp_path / "log").read_text()
    assert re.search(FAULTS[fault], log), log[-2000:]
    assert info(target)["cause"], log[-2000:]
    if fault is hung_task:
        check_report(collected(target, tmp_path), log, capfd)


def collected(target, folder):
    """The vmcore that `pvdump collect` makes of a dump."""
    assert cli.main(["collect", str(target), str(folder / "vmcore")]) == 0
    return folder / "vmcore"


def check_report(vmcore, log, capfd):
    """A report shows the tasks that the kernel found hung, with the stacks that it printed."""
    hung = re.findall(r"INFO: task (\S+):(\d+) blocked for more than", log)
    assert hung
    said = {form: reported(vmcore, capfd, *words) for form, words in FORMS.items()}
    blocked = {
        (thread["task"]["comm"], str(thread["task"]["pid"])): thread
        for thread in json.loads(said["json"])["blocked"]
    }
    assert set(hung) <= set(blocked)
    for name, pid in hung:
        thread = blocked[name, pid]
        ours = [
            f"{frame['name']}+{frame['offset']:#x}/{frame['size']:#x}"
            for frame in thread["stack"]["frames"]
        ]
        assert thread["task"]["state"] == "D"
        assert thread["stack"]["ends"] == ""
        assert ours == printed(log, name, pid)
        for form in ("text", "html"):
            shown = said[form][said[form].index(f"blocked: {name}, PID {pid}") :]
            lines = [f"#{number:<2} {place}" for number, place in enumerate(ours)]
            assert re.findall(r"#\d+ +[^\s<]+", shown)[: len(ours)] == lines


def reported(vmcore, capfd, *words):
    """What `pvdump report` prints."""
    capfd.readouterr()
    assert cli.main(["report", *words, str(vmcore)]) == 0
    return capfd.readouterr().out


def printed(log, name, pid):
    """The stack of a hung task as the kernel printed it: functions with offsets and sizes."""
    _, _, rest = log.partition(f"INFO: task {name}:{pid} blocked for more than")
    _, _, rest = rest.partition("Call Trace:")
    rest = re.split("</TASK>|INFO: task|Kernel panic", rest)[0]
    return re.findall(r"\]  ([^ ?]+\+0x\w+/0x\w+)(?: \[\w+\])?$", rest, re.MULTILINE)
