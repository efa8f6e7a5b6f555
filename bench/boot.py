"""`./build.py bench boot`: a guest's boot by pvboot, beside GRUB, xl's own kernel= and pygrub.

On one Xen an installed Debian boots from copies of one disk, whose initrd is as large as Debian
makes it by default. The ways take turns; a figure is the median of the rounds. A time begins just
before `xl create`, or `xl unpause`, is started and ends when dom0 has the line of the guest's
console. Only pvboot says when it enters the kernel, just before it hands the domain back. The
kernel is the same for all, so what it takes from there to its first line is taken off the others'
first line: what is left is the time until they have entered it. xl and pygrub read the kernel
before the guest is unpaused.
"""

from __future__ import annotations

import re
import statistics
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from elftools.elf.elffile import ELFFile

from bench.bootdisk import Disk, prepared
from bench.figure import show
from bench.linuxguest import NATIVE
from bench.pygrub import ByPygrub, put
from lab import base, bootdisk, python
from lab.guest import Guest
from lab.installed import Installed
from lab.xen import Xen
from tools import Trouble, image
from tools.progress import MIB, Display

ROOT = Path(__file__).resolve().parent.parent
ROUNDS = 3
MEMORY = 512  # MiB
SECONDS = 600
LOOK_EVERY = 0.005
OURS, GRUB = "pvboot", "GRUB"
HVM, HVM_GRUB = "pvboot in hvmloader's place", "SeaBIOS and GRUB"
DIRECT, PYGRUB = "xl's kernel=", "pygrub"
JUMP = re.compile(r"^pvdump: .*: kernel (\d+) KiB, initrd (\d+) KiB, read in (\d+) ms", re.M)
FIRST = re.compile(r"Linux version ")
MOUNTED = re.compile(r"EXT4-fs \(xvda1\): mounted filesystem")
# Linux reads the initrd from its disk, past the cache. The first number is bytes, the last seconds.
READ = "dd if={name} of=/dev/null bs=1M iflag=direct 2>&1 | tail -n 1"
SPEED = re.compile(r"^(\d+) bytes .* copied, ([0-9.e-]+) s")


@dataclass
class Boot:
    """A Boot has the seconds of one boot, from just before the guest was unpaused.

    Attributes:
        creating: What `xl create` took before.
        jump: Until pvboot entered the kernel, else None.
        first: Until Linux' first line.
        mounted: Until the root file system was mounted.
        read: MiB/s at which pvboot read kernel and initrd, else None.
        disk: MiB/s at which Linux then read the initrd, where pvboot did before.
    """

    creating: float
    jump: float | None
    first: float
    mounted: float
    read: float | None = None
    disk: float | None = None


@dataclass
class Way:
    """A Way is one in which the guest boots. `fields` are those of docs/lab.md."""

    fields: dict[str, Any]
    kind: type[Guest] = Guest
    boots: list[Boot] = field(default_factory=list)

    def median(self, name: str) -> float:
        """Return the median of a figure over the boots."""
        return statistics.median(getattr(boot, name) for boot in self.boots)


def run(progress: Display) -> None:
    """Measure and print a line for each figure."""
    built = image.build(ROOT / "out", progress=progress, config=ROOT / "pvboot.yaml")
    with (
        tempfile.TemporaryDirectory(prefix="pvdump-bench-") as name,
        Xen(progress=progress) as xen,
    ):
        python.put(xen)
        put(xen)
        ours = {"type": "pvh", "kernel": "pvboot-elf"}
        with progress.stage("prepare the disk"):
            disk = prepared(xen, Path(name), ours)
        files = {"kernel": str(disk.kernel), "ramdisk": str(disk.initrd)}
        ways = {
            OURS: Way(ours),
            GRUB: Way({"type": "pvh", "kernel": "disk"}),
            DIRECT: Way({"type": "pvh", **files, "cmdline": disk.cmdline}),
            PYGRUB: Way({"type": "pvh", "kernel": "disk"}, ByPygrub),
            HVM: Way({"type": "firmware", "kernel": "pvboot-fw"}),
            HVM_GRUB: Way({"type": "hvm", "kernel": "disk"}),
        }
        for number in range(ROUNDS):
            for index, (what, way) in enumerate(ways.items()):
                with progress.stage(f"round {number + 1}, {what}"):
                    way.boots.append(boot(xen, way, disk, f"bench-{number}-{index}"))
        grub = bootdisk.pvh(xen.suite)
        figures(ways)
        show("boot, image, beside GRUB", built.elf.stat().st_size, grub.stat().st_size, "bytes")
        show("boot, image as loaded, beside GRUB", loaded(built.elf), loaded(grub), "MiB")


def boot(xen: Xen, way: Way, disk: Disk, name: str) -> Boot:
    """Boot a copy of the disk in a way, to where the root file system is mounted and further."""
    path = xen.workdir / f"{name}.img"
    base.copy(disk.path, path)
    disks = [{"vdev": "xvda", "file": str(path)}]
    fields = {"name": name, "memory": MEMORY, "extra": NATIVE, "disks": disks, **way.fields}
    spec = way.kind.parse(fields)
    xen.attach(path)
    began = time.monotonic()
    domain = xen.create(spec, SECONDS, paused=True)
    guest = Installed(xen, spec, domain.domid, domain.files)
    unpaused = time.monotonic()
    xen.sh(f"xl unpause {domain.domid}")
    ours = "pvboot" in spec.kernel
    at = {}
    for what in (JUMP, FIRST, MOUNTED) if ours else (FIRST, MOUNTED):
        at[what] = until(guest, what) - unpaused
    done = Boot(unpaused - began, at.get(JUMP), at[FIRST], at[MOUNTED])
    if ours:
        done.read, done.disk = speeds(guest, disk)
    guest.destroy()
    xen.detach(path)
    path.unlink()
    return done


def speeds(guest: Installed, disk: Disk) -> tuple[float, float]:
    """Return the MiB/s of pvboot's reading, and of Linux' reading the initrd after it."""
    read = JUMP.search(guest.console_log.read_text(errors="replace"))
    guest.wait_boot()
    said = guest.run(READ.format(name=disk.initrd_name)).output
    copied = SPEED.search(said)
    if not read or not copied:
        raise Trouble(f"pvboot or dd did not say how fast it was: {said}")
    kib, ms = int(read[1]) + int(read[2]), int(read[3])
    return kib / 1024 / ms * 1000, int(copied[1]) / MIB / float(copied[2])


def until(guest: Installed, pattern: re.Pattern[str]) -> float:
    """Wait for a line of the guest's console. Returns when it was there, by time.monotonic()."""
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        log = guest.console_log
        if log.exists() and pattern.search(log.read_text(errors="replace")):
            return time.monotonic()
        time.sleep(LOOK_EVERY)
    raise Trouble(f"no line {pattern.pattern!r} within {SECONDS} s\n{guest.xen.tails()}")


def figures(ways: dict[str, Way]) -> None:
    """Print the figures of each door beside those of its peers."""
    for ours, peers in ((OURS, (GRUB, DIRECT, PYGRUB)), (HVM, (HVM_GRUB,))):
        own = ways[ours]
        kernel = own.median("first") - own.median("jump")
        for name in peers:
            peer = ways[name]
            beside = f"beside {name}"
            if name in (GRUB, HVM_GRUB):
                entered = peer.median("first") - kernel
                show(f"boot, {ours}, unpause to jump, {beside}", own.median("jump"), entered, "s")
            for what, words in (("first", "Linux' first line"), ("mounted", "root mounted")):
                title = f"boot, {ours}, unpause to {words}, {beside}"
                show(title, own.median(what), peer.median(what), "s")
            whole = [way.median("creating") + way.median("first") for way in (own, peer)]
            show(f"boot, {ours}, xl create to Linux' first line, {beside}", *whole, "s")
        title = f"boot, {ours}, kernel and initrd, beside Linux' reading"
        show(title, own.median("read"), own.median("disk"), "MiB/s")


def loaded(path: Path) -> float:
    """Return the MiB of memory that an ELF file is loaded into."""
    with path.open("rb") as stream:
        segments = [s for s in ELFFile(stream).iter_segments() if s["p_type"] == "PT_LOAD"]
        return sum(segment["p_memsz"] for segment in segments) / MIB
