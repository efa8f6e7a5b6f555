"""`./build.py demo --firmware`: a guest's whole circle, booted by pvboot each time.

Called by tools/demo.py. An installed Debian boots in an HVM guest with pvboot in hvmloader's place,
by its own grub.cfg; `pvdump setup` there arms it; it panics; the crash kernel dumps and restarts
it; pvboot boots it again; its service collects the dump, and `pvdump report` tells why it died.
The rule: the host only types what a person in the guest would type. Leaves out/demo/console.log
and report.txt.
"""

from __future__ import annotations

import json
import re
import tempfile
import time
from pathlib import Path

from lab.installed import Installed
from lab.xen import Xen
from tools import Trouble, image, package
from tools.progress import Display

ROOT = Path(__file__).resolve().parent.parent
DEB = "/root/pvdump.deb"
FIELDS = {"type": "firmware", "kernel": "pvboot-fw"}
BOOTED = re.compile(r"^pvdump: (.*: kernel .* ms)", re.MULTILINE)
COMPLETE = r"^pvdump: dump complete: (\d+) MiB"
SECONDS = 600


def run(xen: Xen, out: Path, progress: Display) -> str:
    """Go round. Returns the report, in lines for a person.

    Args:
        xen: A Xen that runs.
        out: The folder for console.log.
        progress: Shows the steps.
    """
    image.build(ROOT / "out", progress=progress, config=ROOT / "pvboot.yaml")
    with tempfile.TemporaryDirectory(prefix="pvdump-demo-") as folder:
        deb = package.build(Path(folder), progress).deb
        with progress.stage("boot by pvboot") as stage:
            guest = xen.boot_installed("ext4", **FIELDS)
            stage.note(booted(guest, 1))
        try:
            return circle(guest, deb, progress)
        finally:
            console = guest.console_log.read_text(errors="replace")
            (out / "console.log").write_text(console, encoding="utf-8")


def circle(guest: Installed, deb: Path, progress: Display) -> str:
    """Arm a guest that has booted, panic it, and see it through. Returns the report."""
    with progress.stage("pvdump setup") as stage:
        guest.put({DEB: deb})
        guest.run(f"apt-get -q install -y {DEB} && pvdump setup --yes")
        stage.note(last(guest.run("cat /etc/pvdump.yaml").output, "targets:"))
    with progress.stage("reboot by pvboot") as stage:
        guest.reboot()
        stage.note(booted(guest, 2))
    status = last(guest.run("pvdump status").output, "armed")
    with progress.stage("panic, dump"):
        guest.crash()
        guest.wait_console("Kernel panic - not syncing", SECONDS)
        began = time.monotonic()
        dumped = guest.wait_console(COMPLETE, SECONDS)
        seconds = time.monotonic() - began
    with progress.stage("boot by pvboot") as stage:
        guest.wait_boot()
        stage.note(booted(guest, 3))
    with progress.stage("collect") as stage:
        found = json.loads(guest.run("pvdump list --json").output)
        if not found or not found[-1]["complete"]:
            raise Trouble(f"no dump was collected: see out/demo/console.log\n{found}")
        stage.note(found[-1]["folder"])
    size = guest.run(f"stat -c %s {found[-1]['folder']}/vmcore").output.strip()
    facts = [
        f"status             {status}",
        f"panic message      {found[-1]['reason']}",
        f"dump               {found[-1]['folder']}/vmcore in the guest, {int(size) >> 20} MiB",
        f"memory             {dumped[1]} MiB",
        f"panic to complete  {seconds:.1f} s",
        *(f"boot by pvboot     {line}" for line in boots(guest)),
        "",
        guest.run("pvdump report").output,
    ]
    return "\n".join(facts)


def boots(guest: Installed) -> list[str]:
    """Return what pvboot said of each boot of a guest."""
    return BOOTED.findall(guest.console_log.read_text(errors="replace"))


def booted(guest: Installed, count: int) -> str:
    """Return what pvboot said of the last boot. Raises Trouble unless it booted `count` times."""
    said = boots(guest)
    if len(said) != count:
        raise Trouble(f"{count} boots by pvboot expected, {len(said)} seen: {said}")
    return said[-1]


def last(text: str, word: str) -> str:
    """Return the last line of a text that begins with a word."""
    lines = [line for line in text.splitlines() if line.startswith(word)]
    if not lines:
        raise Trouble(f"no line {word!r} in:\n{text}")
    return lines[-1]
