"""A running Xen: QEMU with Xen and dom0 in it, commands to dom0, disks, guests.

Used by the tests, the demo and `./build.py lab`. The rule: every wait is bounded and its error
shows the last lines of the logs; QEMU ends with the process that started it, whatever happens.
Numbers (memory, CPU model, options) are those Debian's Xen was seen to boot with under emulation.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

from lab import PATIENCE, LabError, LabTimeout, dom0, packages
from lab.channel import Channel, Qmp
from lab.domain import Domain
from lab.guest import Guest
from tools.progress import NULL, Display

XENSTOREDS = ("oxenstored", "xenstored")
QEMU = "qemu-system-x86_64"
NODE_SIZE = 2048  # the default of both daemons
TAIL = 15  # lines of a log in an error


class Xen:
    """A real Xen with a dom0, from `with` to its end.

    suite: Debian release: "bookworm" (Xen 4.17) or "trixie" (Xen 4.20).
    xenstored: the daemon dom0 runs: "oxenstored" or "xenstored".
    disks: raw files attached at once; see attach().
    node_size: bytes, the largest node that xenstored lets a guest write.
    cpus: CPUs of the machine that Xen runs on.
    workdir: folder for logs and the job folder; a temporary one is removed at the end.
    """

    def __init__(
        self,
        suite: str = "bookworm",
        xenstored: str = "oxenstored",
        disks: list[Path] | None = None,
        workdir: Path | None = None,
        progress: Display = NULL,
        node_size: int = NODE_SIZE,
        cpus: int = 1,
    ) -> None:
        if xenstored not in XENSTOREDS:
            raise LabError(f"xenstored {xenstored!r}: expected {' or '.join(XENSTOREDS)}")
        if suite not in packages.SUITES:
            raise LabError(f"suite {suite!r}: expected {' or '.join(packages.SUITES)}")
        self.suite, self.xenstored, self.progress = suite, xenstored, progress
        self.node_size, self.cpus = node_size, cpus
        self.wanted = list(disks or [])
        self.temporary = workdir is None
        if workdir:
            self._settle(workdir.absolute())
        self.commands = 0
        self.devices: dict[Path, str] = {}  # attached file -> dom0's device
        self.attached = 0
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Xen:
        if not shutil.which(QEMU):
            raise LabError(f"{QEMU} is missing: apt-get install qemu-system-x86")
        files = dom0.build(self.suite, self.progress)
        if self.temporary:
            self._settle(Path(tempfile.mkdtemp(prefix="lab-")))
        shutil.rmtree(self.job, ignore_errors=True)
        (self.workdir / "xen.log").unlink(missing_ok=True)
        for name in ("run", "log/xen/console", "guest"):
            (self.job / name).mkdir(parents=True, exist_ok=True)
        try:
            with self.progress.stage("boot Xen") as stage:
                self._start(files)
                self._booted()
                stage.note(f"{self.suite}, {self.xenstored}")
            for path in self.wanted:
                self.attach(path)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Kill QEMU, and with it Xen, dom0 and all guests."""
        if self.process:
            self.process.kill()
            self.process.wait()
            self.process = None
            self.channel.close()
            self.qmp.close()
        if self.temporary:
            shutil.rmtree(self.workdir, ignore_errors=True)

    def sh(self, script: str, timeout: float = PATIENCE, check: bool = True) -> str:
        """Run a shell script in dom0.

        script: lines for busybox sh; xl, xenstore-* and the like are in its PATH, /job is `job`.
        timeout: s.
        Returns what it wrote to standard output and error.
        Raises LabError when its exit code is not 0 (unless check is false), LabTimeout.
        """
        number = self._send(script)
        output = self.job / "run" / f"{number}.out"
        deadline = time.monotonic() + timeout
        try:
            code = self.channel.code(number, deadline)
        except LabError as error:
            text = _text(output)
            what = f"in dom0, {timeout:g} s for: {_first(script)}\n{_tail(text)}"
            kind = LabTimeout if isinstance(error, LabTimeout) else LabError
            raise kind(f"{error}\n{what}\n{self.tails()}") from None
        text = _text(output)
        if code and check:
            raise LabError(f"in dom0, exit {code}: {_first(script)}\n{_tail(text)}\n{self.tails()}")
        return text

    def unpack(self, archive: Path) -> None:
        """Unpack a cpio archive of the host in dom0's root."""
        shutil.copyfile(archive, self.job / archive.name)
        # busybox would not write through a link such as /lib.
        self.sh(f"cd / && cpio -idu </job/{archive.name}")

    def attach(self, path: Path, readonly: bool = False, full_at: int | None = None) -> str:
        """Give dom0 a raw file of the host as a SCSI disk.

        What dom0 writes is seen by the host at once (QEMU writes through the host's page cache).
        full_at: a 512-byte sector; writes that touch it fail as on a full file system.
        Returns the device's name in dom0, such as "/dev/sda".
        """
        path = path.absolute()
        if path in self.devices:
            return self.devices[path]
        number, self.attached = self.attached, self.attached + 1
        node, deadline = f"disk{number}", time.monotonic() + PATIENCE
        file: dict[str, Any] = {"driver": "file", "filename": str(path), "discard": "unmap"}
        if full_at is not None:
            fault = {"event": "none", "iotype": "write", "errno": errno.ENOSPC, "sector": full_at}
            file = {"driver": "blkdebug", "image": file, "inject-error": [fault]}
        self.qmp.ask(
            "blockdev-add",
            deadline,
            **{"driver": "raw", "node-name": node, "read-only": readonly},
            cache={"direct": False, "no-flush": True},
            file=file,
        )
        place = {"bus": "scsi.0", "channel": 0, "scsi-id": number, "lun": 0}
        self.qmp.ask(
            "device_add", deadline, driver="scsi-hd", drive=node, id=node, werror="report", **place
        )
        found = self.sh(
            f"while true; do\n"
            f"    for disk in /sys/bus/scsi/devices/*:0:{number}:0/block/*; do\n"
            f'        name=/dev/"${{disk##*/}}"; [ -b "$name" ] && echo "$name" && exit 0\n'
            f"    done; usleep 50000\n"
            f"done"
        )
        self.devices[path] = found.strip()
        return self.devices[path]

    def detach(self, path: Path) -> None:
        """Take a disk away from dom0; nobody may use it any more."""
        self.qmp.ask("device_del", time.monotonic() + PATIENCE, id=self.qdev(path))
        device = self.devices.pop(path.absolute())
        self.sh(f"while [ -b {device} ]; do usleep 50000; done")

    def qdev(self, path: Path) -> str:
        """QEMU's name for the disk that an attached file is."""
        for block in self.qmp.ask("query-block", time.monotonic() + PATIENCE):
            if (block.get("inserted") or {}).get("file") == str(path.absolute()):
                return str(block["qdev"])
        raise LabError(f"{path} is not attached")

    def create(self, guest: Guest, timeout: float = PATIENCE, paused: bool = False) -> Domain:
        """Start a guest.

        timeout: s for xl create alone.
        paused: leave it paused (`xl unpause` starts it).
        """
        return Domain.create(self, guest, timeout, paused)

    def boot(self, guest: Guest, timeout: float = PATIENCE) -> Domain:
        """Start a guest with `kernel: debian` and wait until its init does the guest's `run`.

        Under this emulation a guest now and then stands still for ever while it starts its second
        CPU (see docs/lab.md); such a guest is destroyed and started once more.
        """
        domain = self.create(guest)
        if domain.wait_init(timeout):
            return domain
        domain.destroy()
        domain = self.create(replace(guest, name=f"{guest.name}-again"))
        if domain.wait_init(timeout):
            return domain
        raise LabTimeout(f"guest {guest.name} stood still twice\n{self.tails()}")

    @contextlib.contextmanager
    def stalled(self) -> Iterator[None]:
        """xenstored stands still meanwhile: what asks it anything, as xl does, waits."""
        self.sh(f"kill -STOP $(pidof {self.xenstored})")
        try:
            yield
        finally:
            self.sh(f"kill -CONT $(pidof {self.xenstored})")

    def log(self) -> str:
        """Xen's own console so far; what guests write to port 0xE9 is there as (dN) lines."""
        return _text(self.workdir / "xen.log")

    def tails(self) -> str:
        """The last lines of the logs, for an error message."""
        text = [f"--- Xen's console\n{_tail(self.log())}"]
        logs = sorted((self.job / "log").rglob("*"), key=lambda p: p.name)
        for path in logs:
            if path.is_file() and (content := path.read_text(errors="replace")).strip():
                text.append(f"--- {path.relative_to(self.job)}\n{_tail(content)}")
        return "\n".join(text)

    def _settle(self, workdir: Path) -> None:
        self.workdir, self.job = workdir, workdir / "job"

    def _send(self, script: str) -> int:
        if not self.process:
            raise LabError("Xen is not running")
        self.commands += 1
        (self.job / "run" / f"{self.commands}.sh").write_text(script, encoding="utf-8")
        self.channel.send(str(self.commands))
        return self.commands

    def _start(self, files: dom0.Dom0) -> None:
        self.channel, self.qmp = Channel(), Qmp()
        ends = [self.channel.theirs.fileno(), self.qmp.theirs.fileno()]
        kernel = f"{files.vmlinux} console=hvc0 quiet random.trust_cpu=on"
        store = f"xenstored={self.xenstored} node_size={self.node_size}"
        command = [
            *("setpriv", "--pdeathsig", "KILL", QEMU),
            # One CPU unless more are asked for: with two, guest and dom0 wait for each other's
            # threads at each access to a device, which takes 30 times as long as soon as the host
            # has something else to do.
            *("-accel", "tcg", "-cpu", "qemu64,+svm,+npt,+rdrand"),
            *("-smp", str(self.cpus)),
            *("-m", "4096", "-nodefaults", "-no-reboot", "-display", "none"),
            *("-serial", f"file:{_escaped(self.workdir / 'xen.log')}"),
            *("-kernel", str(files.xen), "-append", _xen_options()),
            *("-initrd", f"{kernel} {store},{files.initramfs}"),
            "-virtfs",
            f"local,path={_escaped(self.job)},mount_tag=job,security_model=none,multidevs=remap",
            *("-device", "virtio-serial-pci", "-device", "virtio-scsi-pci,id=scsi"),
            *("-chardev", f"socket,id=lab,fd={ends[0]}"),
            *("-device", "virtserialport,chardev=lab,name=lab"),
            *("-chardev", f"socket,id=qmp,fd={ends[1]}", "-mon", "chardev=qmp,mode=control"),
        ]
        with (self.workdir / "qemu.log").open("wb") as log:
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

    def _booted(self) -> None:
        deadline = time.monotonic() + PATIENCE
        try:
            self.qmp.greet(deadline)
            self.channel.ready(deadline)
        except LabError as error:
            with contextlib.suppress(OSError):
                said = (self.workdir / "qemu.log").read_text(errors="replace")
                if said.strip():
                    raise LabError(f"booting Xen: {error}\n--- QEMU\n{_tail(said)}") from None
            kind = LabTimeout if isinstance(error, LabTimeout) else LabError
            raise kind(f"booting Xen ({PATIENCE} s): {error}\n{self.tails()}") from None


def _xen_options() -> str:
    return (
        "console=com1 com1=115200 loglvl=info guest_loglvl=all/all conring_size=1M "
        "dom0_mem=1024M,max:1024M dom0_max_vcpus=1"
    )


def _text(path: Path) -> str:
    return path.read_text(errors="replace") if path.exists() else ""


def _escaped(path: Path) -> str:
    return str(path).replace(",", ",,")


def _first(script: str) -> str:
    lines = script.strip().splitlines() or [""]
    return lines[0] + (" ..." if len(lines) > 1 else "")


def _tail(text: str) -> str:
    return "\n".join(text.strip().splitlines()[-TAIL:])
