"""The outer QEMU: the machine that Xen runs on, started, saved into two files, restored from them.

Used by lab.xen. The rule: QEMU ends with the process that started it, whatever happens; if it ends
before it answers, the error has its output. Debian's Xen was seen to boot under emulation with
these numbers (memory, CPU model, options).

A saved machine is its memory, a file that QEMU had mapped shared, and its state, the stream of a
migration that leaves shared memory out. A machine is restored with the file mapped privately: it
writes to copies of the pages, so the file serves any number of machines at once.
Source: QEMU docs/devel/migration.rst, qapi/migration.json (x-ignore-shared).
"""

from __future__ import annotations

import contextlib
import errno
import os
import shlex
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab import WAIT_SECONDS, LabError, LabTimeout
from lab.channel import Channel, Qmp
from lab.dom0 import Dom0

PROGRAM = "qemu-system-x86_64"
MEMORY = 4096  # MiB, if no other amount is asked for
XEN_OPTIONS = (
    "console=com1 com1=115200 loglvl=info guest_loglvl=all/all conring_size=1M "
    "dom0_mem=1024M,max:1024M dom0_max_vcpus=1"
)
RESTORE_SECONDS = 60  # a restore takes one or two, on a busy machine several
LOOK_EVERY = 0.02  # s


@dataclass(frozen=True)
class Machine:
    """A Machine describes what QEMU emulates, apart from the files of one run.

    Attributes:
        dom0: The files that it boots.
        xenstored: The daemon that dom0 runs.
        node_size: Bytes of the largest node that xenstored lets a guest write.
        cpus: Number of CPUs.
        memory: MiB.
    """

    dom0: Dom0
    xenstored: str
    node_size: int
    cpus: int
    memory: int = MEMORY

    def arguments(self) -> list[str]:
        """Return QEMU's arguments, without those that name files of one run."""
        kernel = f"{self.dom0.vmlinux} console=hvc0 quiet random.trust_cpu=on"
        store = f"xenstored={self.xenstored} node_size={self.node_size}"
        # Xen would else write to all of a large memory before it starts dom0.
        scrub = " bootscrub=0" if self.memory > MEMORY else ""
        return [
            # One CPU unless more are asked for. With two, the threads of guest and dom0 wait for
            # each other at each access to a device, which takes 30 times as long when the host is
            # busy.
            *("-accel", "tcg", "-cpu", "qemu64,+svm,+npt,+rdrand", "-smp", str(self.cpus)),
            *("-m", f"{self.memory}M", "-nodefaults", "-no-reboot", "-display", "none"),
            *("-kernel", str(self.dom0.xen), "-append", XEN_OPTIONS + scrub),
            *("-initrd", f"{kernel} {store},{self.dom0.initramfs}"),
            *("-device", "virtio-serial-pci", "-device", "virtio-scsi-pci,id=scsi"),
            *("-device", "virtserialport,chardev=lab,name=lab"),
            *("-device", "virtio-9p-pci,fsdev=job,mount_tag=job"),
            *("-serial", "chardev:xen", "-mon", "chardev=qmp,mode=control"),
        ]


@dataclass(frozen=True)
class Saved:
    """A Saved names the files of a saved machine.

    Attributes:
        memory: Its memory.
        state: Its state.
        disks: Number and raw file of each disk that it had; it writes to these files.
    """

    memory: Path
    state: Path
    disks: tuple[tuple[int, Path], ...] = ()


class Qemu:
    """A Qemu is a running QEMU.

    Args:
        machine: The machine to emulate.
        workdir: Folder for xen.log (Xen's console) and qemu.log.
        job: Folder that dom0 can mount.
        memory: File for the machine's memory, if it is to be saved; it is mapped shared.
        saved: The saved machine to restore; None: it boots.

    Raises:
        LabError: QEMU is missing, or ends or fails at once; the message has its output.
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
            ram = f"memory-backend-file,id=ram,size={machine.memory}M,share={share}"
            command += ["-object", f"{ram},mem-path={_escaped(file)}"]
            command += ["-machine", "pc,memory-backend=ram"]
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
            self.qmp.greet(time.monotonic() + WAIT_SECONDS)
            if saved:
                self._restore(saved)
        except LabError as error:
            self.kill()
            raise type(error)(f"{error}{self._words()}") from None

    def booted(self) -> None:
        """Wait for dom0's init. Raises LabError with QEMU's output when QEMU ends instead."""
        try:
            self.channel.ready(time.monotonic() + WAIT_SECONDS)
        except LabError as error:
            raise type(error)(f"{error}{self._words()}") from None

    def plug(
        self, number: int, path: Path, readonly: bool = False, full_at: int | None = None
    ) -> None:
        """Give the machine a raw file as a SCSI disk.

        Args:
            number: Of the disk, which no other has or had.
            path: The file.
            readonly: The machine may not write to it.
            full_at: A 512-byte sector; writes that touch it fail as on a full file system.

        Raises:
            LabError: QEMU refuses it.
        """
        node = f"disk{number}"
        file: dict[str, Any] = {"driver": "file", "filename": str(path), "discard": "unmap"}
        if full_at is not None:
            fault = {"event": "none", "iotype": "write", "errno": errno.ENOSPC, "sector": full_at}
            file = {"driver": "blkdebug", "image": file, "inject-error": [fault]}
        self._ask(
            "blockdev-add",
            **{"driver": "raw", "node-name": node, "read-only": readonly},
            cache={"direct": False, "no-flush": True},
            file=file,
        )
        place = {"bus": "scsi.0", "channel": 0, "scsi-id": number, "lun": 0}
        self._ask("device_add", driver="scsi-hd", drive=node, id=node, werror="report", **place)

    def save(self, state: Path) -> None:
        """Stop the machine and write its state into a file, to be used with its memory's file."""
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
        for number, path in saved.disks:
            self.plug(number, path)
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
        deadline = time.monotonic() + WAIT_SECONDS
        answer: dict[str, object] = self.qmp.ask(command, deadline, **arguments)
        return answer

    def _words(self) -> str:
        with contextlib.suppress(OSError):
            said = (self.workdir / "qemu.log").read_text(errors="replace").strip()
            return f"\n--- QEMU\n{said}" if said else ""
        return ""


def _escaped(path: Path) -> str:
    return str(path).replace(",", ",,")
