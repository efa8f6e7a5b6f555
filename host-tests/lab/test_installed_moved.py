"""The target of a real Debian guest is moved, punched or defragmented after it was armed.

The attribute "immutable" hinders that. Who takes it off has the check run at once, which arms anew
where that is safe, else for the log alone; the panic after it changes no byte of the disk. The
file system is frozen at the panic, so that nothing but the image could write.
"""

import hashlib
import os

import pytest
from fixtures import installed
from fixtures.installed import STAY, TARGET, until
from fixtures.xens import ONE

from lab.xen import Xen

pytestmark = [pytest.mark.xen, pytest.mark.matrix(place=[], more={"place": ONE})]

JOURNAL = "journalctl -b -o cat -u pvdump-check.service"
UNLOCK, LOCK = f"chattr -i {TARGET}\n", f"chattr +i {TARGET}\n"
MOVE = f"cp -a {TARGET} /var/crash/new.img && mv -f /var/crash/new.img {TARGET}\n"
PUNCH = f"fallocate -p -o 8M -l 4M {TARGET}\n"
DEFRAGMENT = {"ext4": f"e4defrag -v {TARGET}\n", "lvm-xfs": f"xfs_fsr -v {TARGET}\n"}
# The target's bytes go into a file whose pieces lie between those of another.
FRAGMENT = f"""\
python3 -c '
import os
source = open("{TARGET}", "rb")
paths = ["/var/crash/new.img", "/var/crash/between"]
files = [os.open(path, os.O_WRONLY | os.O_CREAT | os.O_DSYNC) for path in paths]
while piece := source.read(1 << 20):
    for fd in files:
        os.write(fd, piece)'
rm /var/crash/between
mv -f /var/crash/new.img {TARGET}
"""


@pytest.fixture
def boot(built, tmp_path):
    """Gives an installed guest that is armed."""
    running = []

    def start(place, layout="ext4"):
        xen = Xen(*place.split(), ready=installed.armed(layout, tmp_path))
        running.append(xen.__enter__())
        xen.installed.run(STAY)
        return xen.installed

    yield start
    for xen in running:
        xen.close()


def checked(guest):
    """Wait until the check that a change starts has ended; returns its words."""
    until(guest, f"{JOURNAL} | grep -q 'arming anew: '")
    until(guest, "[ $(systemctl is-active pvdump-check.service) != activating ]")
    return guest.run(JOURNAL).output


def digest(path):
    """SHA-256 of a file that is mostly empty."""
    found = hashlib.sha256()
    with path.open("rb") as stream:
        size, end = stream.seek(0, os.SEEK_END), 0
        while end < size:
            try:
                begin = os.lseek(stream.fileno(), end, os.SEEK_DATA)
            except OSError:
                break
            end = os.lseek(stream.fileno(), begin, os.SEEK_HOLE)
            stream.seek(begin)
            while begin < end:
                piece = stream.read(min(end - begin, 1 << 20))
                begin += len(piece)
                if piece.strip(b"\0"):
                    found.update(begin.to_bytes(8, "little") + piece)
    return found.hexdigest()


def panic(guest):
    """Freeze the guest's file system and panic it, which powers it off; returns its last words."""
    guest.run("sync; fsfreeze -f /")
    guest.crash()
    assert guest.wait_end() == "poweroff", guest.console()[-3000:]
    return guest.console()


@pytest.mark.parametrize("change", [MOVE, PUNCH], ids=["moved", "punched"])
def test_a_target_that_was_changed_is_named_and_not_written(boot, place, change):
    guest = boot(place)
    refused = guest.run(change, check=False)
    assert (refused.code != 0, "not permitted" in refused.output) == (True, True), refused
    assert guest.run("pvdump status", check=False).code == 0

    guest.run(UNLOCK + change)
    said = checked(guest)
    assert "; armed for the log alone" in said
    status = guest.run("pvdump status", check=False)
    assert status.code == 1
    assert status.output.startswith(f"NOT READY: {TARGET}"), status.output
    assert "armed for the log alone" in status.output.splitlines()[0]
    assert guest.run("pvdump doctor", check=False).code == 1

    guest.run("sync; fsfreeze -f /")
    before = digest(guest.disk)
    guest.crash()
    assert guest.wait_end() == "poweroff", guest.console()[-3000:]
    assert "pvdump: why the kernel died: sysrq" in guest.console()
    assert "dump complete" not in guest.console()
    assert digest(guest.disk) == before


@pytest.mark.parametrize("layout", DEFRAGMENT)
def test_a_target_that_was_defragmented_is_armed_where_it_is_then(boot, place, layout):
    guest = boot(place, layout)
    guest.run(UNLOCK + FRAGMENT + LOCK + "pvdump arm")
    before = installed.extents(guest)
    assert len(before) > 3
    guest.run(DEFRAGMENT[layout], check=False)
    assert installed.extents(guest) == before

    guest.run(UNLOCK + DEFRAGMENT[layout] + LOCK)
    checked(guest)
    after = installed.extents(guest)
    assert len(after) < len(before)
    # What the daily check does; the first one may have come before the attribute was back.
    guest.run("systemctl start pvdump-check.service")
    status = guest.run("pvdump status", check=False)
    assert (status.code, status.output.splitlines()[0]) == (0, "armed"), status.output

    guest.run("sync; fsfreeze -f /")
    old, new = installed.read(guest, before), installed.read(guest, after)
    guest.crash()
    assert guest.wait_end() == "poweroff", guest.console()[-3000:]
    assert "pvdump: dump complete" in guest.console()
    assert installed.read(guest, after) != new
    apart = not any(a < d + n and d < a + m for a, m in before for d, n in after)
    assert not apart or installed.read(guest, before) == old
