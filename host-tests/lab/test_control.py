"""The image on a real Xen: shut down, rebooted, saved, restored and migrated while it writes."""

import pytest
from fixtures.controlled import acknowledged, assert_written
from fixtures.xens import ONE, XENS

from lab import linux, standstill
from pvdump.dump.collect import collect
from tools import image

pytestmark = pytest.mark.xen

MORE = 40  # numbers that are to be acknowledged between two events
# xl waits 60 s. A target that takes so many bytes a second makes a dump of 160 MiB longer.
SLOW = 384 << 10
DUMP = "pvdump.disk=xvdb pvdump.level=0 pvdump.then=poweroff"


@pytest.fixture(scope="module")
def listening(tmp_path_factory):
    """The image of host-tests/boot/control."""
    config = image.ROOT / "host-tests/boot/control/image.yaml"
    return image.build(tmp_path_factory.mktemp("control"), config=config)


@pytest.fixture
def start(xen, guest, listening, tmp_path):
    """Starts the image as a guest that writes to a disk of 2 MiB."""

    def create(door, backend="blkback", **fields):
        disk = tmp_path / "disk.img"
        disk.write_bytes(bytes(2 << 20))
        kernel = str(listening.elf if door == "pvh" else listening.fw)
        disks = [{"vdev": "xvda", "file": str(disk), "backend": backend}]
        domain = xen.create(guest(f"{door}.yaml", kernel=kernel, disks=disks, **fields))
        return Writer(domain, disk)

    return create


class Writer:
    """A domain that writes, with all that its consoles said."""

    def __init__(self, domain, disk):
        self.domain, self.disk = domain, disk
        self.more()

    def text(self):
        # A domain's log is named after the name that it had when it began.
        logs = self.domain.console_log.parent.glob(f"guest-{self.domain.guest.name}*.log")
        return "".join(log.read_text(errors="replace") for log in logs)

    def more(self):
        """Wait until more is acknowledged."""
        until = acknowledged(self.text()) + MORE
        what = f"number {until} to be acknowledged"
        self.domain.wait_until(lambda: acknowledged(self.text()) >= until, what)

    def xl(self, line):
        self.domain.xen.sh(f"xl {line} 2>&1 || exit 1")

    def saved(self):
        """Save it, and restore it."""
        self.xl(f"save {self.domain.domid} /tmp/saved")
        self.xl("restore /tmp/saved && rm /tmp/saved")
        self.domain.find_again()

    def checkpointed(self):
        """Save it, and let it go on."""
        self.xl(f"save -c {self.domain.domid} /tmp/saved && rm /tmp/saved")

    def migrated(self):
        """Migrate it to the host that it runs on."""
        self.domain.migrate()

    def end(self, command):
        """Have it end by `xl shutdown` or `xl reboot`, and look at its disk. Returns the reason."""
        self.xl(f"{command} {self.domain.domid}")
        reason = self.domain.wait_end()
        self.domain.xen.sh("sync")  # QEMU's qdisk writes to dom0's page cache
        assert_written(self.disk.read_bytes(), acknowledged(self.text()))
        return reason


@pytest.mark.matrix(
    xen=XENS, door=["pvh", "firmware"], command=["shutdown", "reboot"], indirect=["xen"]
)
def test_it_ends_as_xl_asks(start, door, command):
    writer = start(door)
    assert writer.end(command) == {"shutdown": "poweroff", "reboot": "reboot"}[command]


@pytest.mark.matrix(
    xen=XENS, door=["pvh", "firmware"], backend=["blkback", "qdisk"], indirect=["xen"]
)
def test_saved_restored_and_migrated_it_goes_on_and_loses_nothing(start, door, backend):
    writer = start(door, backend)
    for change in (writer.migrated, writer.saved, writer.checkpointed, writer.migrated):
        change()
        writer.more()
    assert writer.text().count("guest: resumed") == 4
    assert writer.end("shutdown") == "poweroff"


def test_the_save_of_a_guest_that_dumps_is_given_up_and_the_dump_is_whole(
    at_prompt, target, tmp_path
):
    domain = at_prompt(*ONE, "hvm")
    domain.attach("xvdb", target)
    domain.bring("xvdb", {"pvdump.bin": "image-bin"})
    domain.type(linux.kexec("/pvdump.bin", DUMP, file_mode=True))
    domain.type("echo armed $?")
    domain.wait_console("^armed 0$")
    with standstill.slow(domain.xen, target, SLOW):
        domain.type("echo c >/proc/sysrq-trigger")
        domain.wait_console("^pvdump: why the kernel died")
        save = f"xl save {domain.domid} /run/saved"
        said = domain.xen.sh(f"{save} 2>&1; echo status $?")
        assert "guest didn't acknowledge suspend" in said
        assert "status 0" not in said.splitlines()
        asked = "the toolstack asks for suspend: not now, the dump goes on"
        assert f"pvdump: {asked}" in domain.console()
        assert "pvdump: dump complete" not in domain.console()
    assert domain.wait_end() == "poweroff", domain.console()[-3000:]
    assert "pvdump: dump complete" in domain.console()
    assert collect(target, tmp_path / "vmcore").reason == ""
