"""A Linux guest that panics: what its crash kernel takes, be it the image or Linux itself.

Used by the benchmarks of the dump. Both crash kernels get the same guest: the same kernel, memory,
vCPU and files, one disk. The rule: times are the host's, between two lines of the guest's console,
which it looks at 20 times a second; CPU is what the guest's vCPU has run by Xen's count, from just
before the panic to its end.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, replace
from pathlib import Path

from bench.linuxguest import ran
from lab import LabTimeout, flattened, kdump, linux
from lab.domain import Domain
from lab.guest import Guest
from lab.xen import Xen
from pvdump.dump.collect import collect
from pvdump.dump.info import read_superblock
from pvdump.dump.prepare import prepare
from tools import Trouble
from tools.progress import MIB

DISK = "xvdb"
PANIC = "Kernel panic - not syncing"
PANIC_SECONDS = 120
SECONDS = 600
RUN = """\
{load} || echo "bench: not loaded"
echo "bench: armed"
head -n 1 </dev/hvc0
{crash}
"""


@dataclass(frozen=True)
class Kind:
    """A kind of crash kernel.

    Attributes:
        load: The shell line that loads it.
        first, complete: Patterns of its first line on the console, and of the last one of its dump.
        failed: Pattern of lines that say that there will be no dump.
    """

    load: str
    first: str
    complete: str
    failed: str


def image(level: int) -> Kind:
    """Return the image, which keeps what makedumpfile's level says."""
    line = f"pvdump.disk={DISK} pvdump.then=poweroff pvdump.level={level}"
    return Kind(
        linux.kexec("/pvdump.bin", line, True),
        "pvdump: crash kernel",
        r"pvdump: dump complete: .*?, ([\d.]+) s",
        r"pvdump: dump failed|^Traceback|^MemoryError",
    )


OURS = image(31)


def linux_kdump(*ways: str) -> Kind:
    """Return Linux's own crash kernel, which writes the dump in some ways; see lab.kdump."""
    return Kind(
        kdump.load(DISK, ways),
        "Linux version",
        rf"^kdump: {ways[-1]} 0, .*",
        rf"{PANIC}|^kdump: \w+ [1-9]",
    )


@dataclass(frozen=True)
class Dump:
    """A dump that was written.

    Attributes:
        size: Bytes on the disk.
        pages: Pages in it as a KDUMP file, those of zeros too; 0: not known.
        writing: Seconds of its writing alone, by the crash kernel's clock.
    """

    size: int
    pages: int
    writing: float


@dataclass(frozen=True)
class Crash:
    """What one crash took.

    Attributes:
        entry: Seconds from the panic to the crash kernel's first line.
        took: Seconds from that line to the end of the last dump.
        cpu: Seconds that the vCPU ran.
        dumps: What was written, by way; that of the image is "".
    """

    entry: float
    took: float
    cpu: float
    dumps: dict[str, Dump]


def crash(
    xen: Xen, kind: Kind, backend: str, folder: Path, memory: int, reserved: int
) -> Crash | None:
    """Have a guest panic and its crash kernel write to a disk.

    Args:
        xen: The Xen.
        kind: The crash kernel.
        backend: Of the disk: blkback or qdisk.
        folder: For the disk's file.
        memory: MiB of the guest.
        reserved: MiB of its crashkernel=.

    Returns:
        None if there is no dump, as when too little memory is reserved.

    Raises:
        LabError: The guest does not boot.
        Trouble: The image's dump is damaged.
    """
    path = folder / "disk.img"
    path.unlink(missing_ok=True)
    prepare(path, size=(memory + 64) * MIB)
    guest = Guest.parse(
        {
            "name": f"crash-{xen.commands}",  # no two guests have one name
            "type": "hvm",
            "kernel": "debian",
            "memory": memory,
            "cmdline": f"console=hvc0 crashkernel={reserved}M random.trust_cpu=on",
            "disks": [{"vdev": DISK, "file": str(path), "backend": backend}],
            "files": {"pvdump.bin": "image-bin", **kdump.files(xen.suite, xen.progress)},
            "on_poweroff": "preserve",
            "run": RUN.format(load=kind.load, crash=linux.crash()),
        }
    )
    domain = xen.boot(guest)
    try:
        return _measured(xen, domain, kind, path)
    finally:
        domain.destroy()
        xen.detach(path)


def _measured(xen: Xen, domain: Domain, kind: Kind, path: Path) -> Crash | None:
    said = domain.wait_console(r"^bench: (armed|not loaded)")
    if said[1] != "armed":
        return None
    before = ran(xen, domain.domid)
    domain.type("go")
    domain.wait_console(PANIC, PANIC_SECONDS)
    panic = time.monotonic()
    since = rf"{PANIC}[\s\S]*?"
    try:
        domain.wait_console(f"{since}{kind.first}", PANIC_SECONDS)
        first = time.monotonic()
        end = domain.wait_console(f"{since}{kind.first}[\\s\\S]*?({kind.complete}|{kind.failed})")
        complete = time.monotonic()
    except LabTimeout:
        return None
    if not re.search(kind.complete, end[1], re.MULTILINE):
        return None
    domain.wait_end(SECONDS)
    cpu = ran(xen, domain.domid) - before
    dumps = _theirs(domain.console(), path) or {"": _ours(path, end[1])}
    return Crash(first - panic, complete - first, cpu, dumps)


def _ours(path: Path, said: str) -> Dump:
    """Return what the image wrote, once each byte of it is checked."""
    vmcore = path.with_suffix(".kdump")
    vmcore.unlink(missing_ok=True)
    done = collect(path, vmcore, form="kdump")
    if done.reason or done.detail:
        raise Trouble(f"the dump is damaged: {done.reason} {done.detail}")
    took = re.search(OURS.complete, said)
    assert took
    return Dump(read_superblock(path).dump_size, flattened.pages(vmcore), float(took[1]))


def _theirs(console: str, path: Path) -> dict[str, Dump]:
    """Return what Linux wrote in each way; the last one is still on the disk."""
    found = re.findall(r"^kdump: (\w+) 0, (\d+) bytes, ([\d.]+) s", console, re.MULTILINE)
    dumps = {way: Dump(int(size), 0, float(s)) for way, size, s in found}
    for way in [way for way, *_ in found[-1:] if way != "dd"]:
        vmcore = path.with_suffix(".kdump")
        flattened.rearranged(path, vmcore)
        dumps[way] = replace(dumps[way], pages=flattened.pages(vmcore))
    return dumps
