"""`./build.py demo`: a Debian guest on a real Xen panics, pvdump dumps it, and the vmcore is read.

Called by build.py. Only the CPU is emulated: the image is built, Xen runs in QEMU, the guest is
Debian's kernel, the dump goes to a PV disk that `pvdump prepare` has signed and comes back
through `pvdump collect` as a KDUMP file. Leaves out/demo/vmcore, console.log and report.txt. With
--firmware an installed Debian goes the whole circle: see firmwaredemo.py.
"""

from __future__ import annotations

import argparse
import re
import shutil
import time
from pathlib import Path

from lab import readers
from lab.domain import Domain
from lab.guest import Guest
from lab.xen import Xen
from pvdump.dump.collect import collect
from pvdump.dump.info import read_superblock
from pvdump.dump.prepare import prepare
from tools import Trouble, firmwaredemo, image
from tools.progress import MIB, Display, Stage, display

ROOT = Path(__file__).resolve().parent.parent
GUEST = ROOT / "lab/guests/demo.yaml"
DISK_MIB = 512
LOG_BEFORE = 4  # lines of the guest's log before the panic
PANIC_SECONDS = 120
STEP_SECONDS = 120  # between two lines of the dump's progress
LOOK_EVERY = 0.05


def main(arguments: list[str]) -> int:
    """Crash a Linux guest, collect its dump and print the report."""
    parser = argparse.ArgumentParser(prog="build.py demo", description=__doc__.split("\n")[0])
    parser.add_argument("--suite", default="bookworm", help="bookworm (default) or trixie")
    parser.add_argument("--xenstored", default="oxenstored", help="oxenstored or xenstored")
    parser.add_argument("--backend", default="blkback", help="blkback or qdisk")
    parser.add_argument(
        "--firmware",
        action="store_true",
        help="an installed guest that pvboot boots, before the panic and after it",
    )
    options = parser.parse_args(arguments)
    if options.firmware and options.backend != "blkback":
        parser.error("--backend is for the demo without --firmware")
    out = ROOT / "out" / "demo"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    with display() as progress:
        if options.firmware:
            place = options.suite, options.xenstored
            with Xen(*place, workdir=out / "lab", progress=progress) as xen:
                text = firmwaredemo.run(xen, out, progress)
        else:
            text = dump(options, out, progress)
    (out / "report.txt").write_text(text, encoding="utf-8")
    print(text)
    return 0


def dump(options: argparse.Namespace, out: Path, progress: Display) -> str:
    """Crash a guest of the lab's, and collect its dump here. Returns the report."""
    image.build(ROOT / "out", progress=progress)
    disk = out / "disk.img"
    prepare(disk, size=DISK_MIB * MIB)
    disks = [{"vdev": "xvdb", "file": str(disk), "backend": options.backend}]
    guest = Guest.load(GUEST, disks=disks)
    with Xen(options.suite, options.xenstored, workdir=out / "lab", progress=progress) as xen:
        seconds = crash(xen, guest, out, progress)
    with progress.stage("collect", total=read_superblock(disk).dump_size) as stage:
        collect(disk, out / "vmcore", progress=stage, form="kdump")
    return report(out, disk, seconds)


def crash(xen: Xen, guest: Guest, out: Path, progress: Display) -> float:
    """Start the guest and see its dump through. Returns seconds from panic to dump complete."""
    with progress.stage("boot guest") as stage:
        domain = xen.boot(guest)
        stage.note(domain.wait_console(r"Linux version (\S+)")[1])
    with progress.stage("panic") as stage:
        stage.note(domain.wait_console(r"Kernel panic - not syncing: (.*)", PANIC_SECONDS)[1])
        began = time.monotonic()
        domain.wait_console(r"pvdump: crash kernel", PANIC_SECONDS)
    try:
        with progress.stage("dump") as stage:
            watch(domain, stage)
        seconds = time.monotonic() - began
        domain.wait_end(STEP_SECONDS)
    finally:
        console(domain, out)
    return seconds


def console(domain: Domain, out: Path) -> None:
    """Save the guest's console."""
    (out / "console.log").write_text(domain.console(), encoding="utf-8")


def watch(domain: Domain, stage: Stage) -> None:
    """Follow the dump's progress on the guest's console to its end."""
    deadline = time.monotonic() + STEP_SECONDS
    while time.monotonic() < deadline:
        text = domain.console()
        if failed := re.search(r"pvdump: (dump failed: .*)|^(Traceback) ", text, re.MULTILINE):
            why = failed[1] or "an error nobody foresaw, see out/demo/console.log"
            raise Trouble(f"the dump did not succeed: {why}")
        steps = re.findall(r"pvdump: (\d+) of (\d+) MiB", text)
        complete = re.search(r"pvdump: dump complete: (\d+) MiB", text)
        if steps:
            stage.expect(int(steps[-1][1]) * MIB)
        done = int(complete[1]) * MIB if complete else int(steps[-1][0]) * MIB if steps else 0
        if done > stage.done:
            stage.advance(done - stage.done)
            deadline = time.monotonic() + STEP_SECONDS
        if complete:
            return
        time.sleep(LOOK_EVERY)
    raise Trouble(f"the dump stands still for {STEP_SECONDS} s: see out/demo/console.log")


def report(out: Path, disk: Path, seconds: float) -> str:
    """Return the vmcore's account of the panic, in lines for a person."""
    block = read_superblock(disk)
    vmcore = out / "vmcore"
    console = (out / "console.log").read_text(encoding="utf-8")
    log = readers.dmesg(vmcore, out / "dmesg")
    lines = log.strip().splitlines()
    panic = re.search(r"Kernel panic - not syncing: .*", log)
    at = next((i for i, line in enumerate(lines) if "Kernel panic" in line), len(lines))
    reserved = re.search(r"[Rr]eserving (\d+ ?MB) of memory.*crashkernel", log) or re.search(
        r"crashkernel reserved: .*\((\d+ MB)\)", log
    )
    facts = [
        f"kernel release     {block.release}",
        f"panic message      {panic[0] if panic else 'none in the log'}",
        f"crashed on         vCPU {block.crash_vcpu}",
        f"dump               {vmcore.relative_to(ROOT)}, {vmcore.stat().st_size / MIB:.1f} MiB",
        f"kept               {told(console, 'to be kept: (.*?);')}",
        f"left out           {told(console, 'left out, MiB: (.*)')} MiB",
        f"panic to complete  {seconds:.1f} s",
        f"memory reserved    {reserved[1] if reserved else 'not in the log'}",
        "the end of its log",
        *(f"    {line}" for line in lines[max(at - LOG_BEFORE, 0) :]),
    ]
    return "\n".join(facts)


def told(console: str, pattern: str) -> str:
    """Return what the image said on the guest's console, where a pattern's group has it."""
    found = re.search(f"pvdump: {pattern}", console)
    return found[1].strip() if found else "not said"
