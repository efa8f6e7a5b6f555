"""A guest changes between being armed and its panic: it moves, or gives memory back."""

import re

import pytest
from fixtures.xens import ONE

from lab import linux
from pvdump.dump.collect import collect
from pvdump.dump.info import read_superblock
from pvfw import superblock

pytestmark = pytest.mark.xen

LINE = "pvdump.disk=xvdb pvdump.then=poweroff pvdump.level=0"
MEMORY = 160  # MiB, of the guest at its prompt
LESS = 128


def smaller(domain):
    """Have the guest's balloon driver give memory back."""
    domain.xen.sh(f"xl mem-set {domain.domid} {LESS}m")
    balloon = "/sys/devices/system/xen_memory/xen_memory0/info/current_kb"
    domain.type(f"until [ $(cat {balloon}) -le {LESS << 10} ]; do usleep 50000; done; echo smaller")
    domain.wait_console("^smaller$")


def saved(domain):
    """Save the guest and restore it."""
    domain.xen.sh(
        f"xl save {domain.domid} /run/saved && xl restore /run/saved && rm /run/saved || exit 1"
    )
    domain.find_again()


def migrated(domain):
    """Migrate the guest to the host that it runs on."""
    domain.migrate()


@pytest.mark.parametrize(
    "changes", [(migrated,), (smaller, saved)], ids=["migrated", "smaller, then saved"]
)
def test_a_guest_that_was_armed_before_it_changed_is_dumped(at_prompt, target, tmp_path, changes):
    domain = at_prompt(*ONE, "hvm")
    domain.attach("xvdb", target)
    domain.bring("xvdb", {"pvdump.bin": "image-bin"})
    domain.type(f"{linux.kexec('/pvdump.bin', LINE, file_mode=True)}; echo armed $?")
    domain.wait_console("^armed 0$")
    for change in changes:
        change(domain)
    domain.run(f"{linux.crash()}\n")
    assert domain.wait_end() == "poweroff", domain.console()
    assert "pvdump: dump complete" in domain.console()
    assert read_superblock(target).state == superblock.COMPLETE
    done = collect(target, tmp_path / "vmcore")
    assert done.reason == ""
    holes = re.search(r"pvdump: (\d+) pages could not be read", domain.console())
    given_back = int(holes[1]) if holes else 0
    assert (given_back > (MEMORY - LESS) << 7) == (smaller in changes)
