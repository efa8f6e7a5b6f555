"""The outer QEMU: the machine that Xen runs on, started, saved into two files, restored from them.

Used by lab.xen. The rule: QEMU ends with the process that started it, whatever happens, and what
comes before its first answer is an error with its own words. Numbers (memory, CPU model, options)
are those Debian's Xen was seen to boot with under emulation.

A saved machine is its memory, a file that QEMU had mapped shared, and its state, the stream of a
migration that leaves shared memory out. A machine is restored with the file mapped privately, so
that it writes to copies of its pages and the file serves any number of machines at once.
Source: QEMU docs/devel/migration.rst, qapi/migration.json (x-ignore-shared).
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from lab import PATIENCE, LabError, LabTimeout
from lab.channel import Channel, Qmp
from lab.dom0 import Dom0

PROGRAM = "qemu-system-x86_64"
MEMORY = "4096M"
XEN_OPTIONS = (
    "console=com1 com1=115200 loglvl=info guest_loglvl=all/all conring_size=1M "
    "dom0_mem=1024M,max:1024M dom0_max_vcpus=1"
)
RESTORE_SECONDS = 60  # takes one or two, on a busy machine several
LOOK_EVERY = 0.02  # s


@dataclass(frozen=True)
class Machine:
    """What a machine is, apart from the files of one run.

    Attributes:
        dom0: What it boots.
        xenstored: The daemon that dom0 runs.
        node_size: Bytes, the largest node that xenstored lets a guest write.
        cpus: CPUs of the machine.
    """

    dom0: Dom0
    xenstored: str
    node_size: int
    cpus: int

    def arguments(self) -> list[str]:
        """QEMU's arguments, without those that name files of one run."""
        kernel = f"{self.dom0.vmlinux} console=hvc0 quiet random.trust_cpu=on"
        store = f"xenstored={self.xenstored} node_size={self.node_size}"
        return [
            # One CPU unless more are asked for: with two, guest and dom0 wait for each other's
            # threads at each access to a device, which takes 30 times as long as soon as the host
            # has something else to do.
            *("-accel", "tcg", "-cpu", "qemu64,+svm,+npt,+rdrand", "-smp", str(self.cpus)),
            *("-m", MEMORY, "-nodefaults", "-no-reboot", "-display", "none"),
            *("-kernel", str(self.dom0.xen), "-append", XEN_OPTIONS),
            *("-initrd", f"{kernel} {store},{self.dom0.initramfs}"),
            *("-device", "virtio-serial-pci", "-device", "virtio-scsi-pci,id=scsi"),
            *("-device", "virtserialport,chardev=lab,name=lab"),
            *("-device", "virtio-9p-pci,fsdev=job,mount_tag=job"),
            *("-serial", "chardev:xen", "-mon", "chardev=qmp,mode=control"),
        ]


@dataclass(frozen=True)
class Saved:
    """A saved machine's files."""

    memory: Path
    state: Path


class Qemu:
    """A running QEMU.

    Args:
        machine: What it is to be.
        workdir: Folder for xen.log (Xen's console) and qemu.log.
        job: Folder that dom0 can mount.
        memory: File for the machine's memory, which it shares so that it can be saved; None: no
            file.
        saved: What to restore it from; None: it boots.

    Raises:
        LabError: QEMU refuses.
    """

    def __init__(
        self,
        machine: Machine,
        workdir: Path,
        job: Path,
        memory: Path | None = None,
        saved: Saved | None = None,
    ) -> None:
        if not shutil.which(PROGRAM):
            raise LabError(f"{PROGRAM} is missing: apt-get install qemu-system-x86")
        self.channel, self.qmp = Channel(), Qmp()
        self.workdir, self.memory = workdir, memory
        ends = [self.channel.theirs.fileno(), self.qmp.theirs.fileno()]
        command = [
            *("setpriv", "--pdeathsig", "KILL", PROGRAM, *machine.arguments()),
            *("-chardev", f"file,id=xen,append=on,path={_escaped(workdir / 'xen.log')}"),
            *("-fsdev", f"local,id=job,path={_escaped(job)},security_model=none,multidevs=remap"),
            *("-chardev", f"socket,id=lab,fd={ends[0]}"),
            *("-chardev", f"socket,id=qmp,fd={ends[1]}"),
        ]
        if file := memory or (saved and saved.memory):
            share = "on" if memory else "off"
            ram = (
                f"memory-backend-file,id=ram,size={MEMORY},share={share},mem-path={_escaped(file)}"
            )
            command += ["-object", ram, "-machine", "pc,memory-backend=ram"]
        if saved:
            command += ["-incoming", "defer"]
        with (workdir / "qemu.log").open("wb") as log:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=ends,
                env={**os.environ, "LC_ALL": "C"},
            )
        for end in (self.channel.theirs, self.qmp.theirs):
            end.close()
        try:
            self.qmp.greet(time.monotonic() + PATIENCE)
            if saved:
                self._restore(saved)
        except LabError as error:
            self.kill()
            raise type(error)(f"{error}{self._words()}") from None

    def booted(self) -> None:
        """Wait for dom0's init. Raises LabError with QEMU's own words when it ends instead."""
        try:
            self.channel.ready(time.monotonic() + PATIENCE)
        except LabError as error:
            raise type(error)(f"{error}{self._words()}") from None

    def save(self, state: Path) -> None:
        """Stop the machine and write its state; its memory's file and this belong together."""
        self._ask("stop")
        self._ignore_shared()
        self._ask("migrate", uri=f"exec:cat >{shlex.quote(str(state))}")
        self._migrated()

    def kill(self) -> None:
        """End QEMU, and with it Xen, dom0 and all guests."""
        self.process.kill()
        self.process.wait()
        self.channel.close()
        self.qmp.close()

    def _restore(self, saved: Saved) -> None:
        self._ignore_shared()
        self._ask("migrate-incoming", uri=f"exec:cat {shlex.quote(str(saved.state))}")
        self._migrated()
        self._ask("cont")

    def _migrated(self) -> None:
        deadline = time.monotonic() + RESTORE_SECONDS
        while (status := self._ask("query-migrate").get("status")) != "completed":
            if status in ("failed", "cancelled"):
                raise LabError(f"QEMU's migration has {status}")
            if time.monotonic() > deadline:
                raise LabTimeout(f"QEMU's migration is {status} after {RESTORE_SECONDS} s")
            time.sleep(LOOK_EVERY)

    def _ignore_shared(self) -> None:
        self._ask(
            "migrate-set-capabilities",
            capabilities=[{"capability": "x-ignore-shared", "state": True}],
        )

    def _ask(self, command: str, **arguments: object) -> dict[str, object]:
        answer: dict[str, object] = self.qmp.ask(command, time.monotonic() + PATIENCE, **arguments)
        return answer

    def _words(self) -> str:
        with contextlib.suppress(OSError):
            said = (self.workdir / "qemu.log").read_text(errors="replace").strip()
            return f"\n--- QEMU\n{said}" if said else ""
        return ""


def _escaped(path: Path) -> str:
    return str(path).replace(",", ",,")
