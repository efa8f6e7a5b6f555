"""A running Xen: commands to dom0, disks, guests.

Used by the tests, the demo and `./build.py lab`. The rule: every wait has a time limit, and its
error shows the last lines of the logs; QEMU ends with the process that started it, whatever
happens.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import time
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

from lab import WAIT_SECONDS, LabError, LabTimeout, base, dom0, packages, python
from lab.base import Base
from lab.channel import Qmp
from lab.domain import Domain
from lab.guest import Guest
from lab.installed import Installed, Ready
from lab.prompt import Prompt
from lab.qemu import MEMORY, RESTORE_SECONDS, Machine, Qemu
from tools.progress import NULL, Display

XENSTOREDS = ("oxenstored", "xenstored")
NODE_SIZE = 2048  # the default of both daemons
TAIL = 15  # lines of a log in an error


class Xen:
    """A Xen is a real Xen with a dom0; it starts with a `with` block and ends with it.

    Args:
        suite: Debian release: "bookworm" (Xen 4.17) or "trixie" (Xen 4.20).
        xenstored: The daemon dom0 runs: "oxenstored" or "xenstored".
        disks: Raw files attached at once; see attach().
        workdir: Folder for logs and the job folder; a temporary one is removed at the end.
        progress: Shows the steps.
        node_size: Bytes of the largest node that xenstored lets a guest write.
        cpus: CPUs of the machine that Xen runs on.
        memory: MiB of that machine, of which Xen and dom0 take 1,200.
        restored: Restore a saved Xen instead of booting one; see lab.base.
        prompted: A guest of prompt.guest() that has booted in the saved Xen; implies `restored`.
        pvdump: Have Python and `pvdump` in its dom0, as python.put() does; implies `restored`.
        ready: A guest with an installed Debian that has booted; implies `restored`.

    Attributes:
        prompt: The guest `prompted`, started.
        installed: The guest `ready`, started.

    Raises:
        LabError: An argument is wrong; or, on entry, Xen cannot be started.
    """

    prompt: Prompt
    installed: Installed

    def __init__(
        self,
        suite: str = "bookworm",
        xenstored: str = "oxenstored",
        disks: list[Path] | None = None,
        workdir: Path | None = None,
        progress: Display = NULL,
        node_size: int = NODE_SIZE,
        cpus: int = 1,
        restored: bool = False,
        prompted: Guest | None = None,
        pvdump: bool = False,
        memory: int = MEMORY,
        ready: Ready | None = None,
    ) -> None:
        if xenstored not in XENSTOREDS:
            raise LabError(f"xenstored {xenstored!r}: expected {' or '.join(XENSTOREDS)}")
        if suite not in packages.SUITES:
            raise LabError(f"suite {suite!r}: expected {' or '.join(packages.SUITES)}")
        self.suite, self.xenstored, self.progress = suite, xenstored, progress
        self.node_size, self.cpus, self.memory = node_size, cpus, memory
        self.wanted = list(disks or [])
        self.prompted, self.pvdump, self.ready = prompted, pvdump, ready
        self.restored = restored or prompted is not None or pvdump or ready is not None
        self.temporary = workdir is None
        if workdir:
            self.settle(workdir.absolute())
        self.commands = 0
        self.devices: dict[Path, str] = {}  # attached file -> dom0's device
        self._attached: dict[Path, tuple[int, int]] = {}  # attached file -> its st_dev and st_ino
        self.attached = 0
        self.qemu: Qemu | None = None

    def __enter__(self) -> Xen:
        files = dom0.build(self.suite, self.progress)
        machine = Machine(files, self.xenstored, self.node_size, self.cpus, self.memory)
        saved = base.of(self, machine) if self.restored else None
        if self.temporary:
            self.settle(Path(tempfile.mkdtemp(prefix="lab-")))
        try:
            if not (saved and self._restore(machine, saved)):
                self._boot(machine)
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
        if self.qemu:
            self.qemu.kill()
            self.qemu = None
        if self.temporary:
            shutil.rmtree(self.workdir, ignore_errors=True)

    def sh(self, script: str, timeout: float = WAIT_SECONDS, check: bool = True) -> str:
        """Run a shell script in dom0.

        Args:
            script: Lines for busybox sh; xl and xenstore-* are in its PATH, the job folder is /job.
            timeout: Seconds.
            check: Raise if the exit code is not 0.

        Returns:
            The script's standard output and error.

        Raises:
            LabError: Its exit code is not 0, or QEMU has ended.
            LabTimeout: It has not ended in time.
        """
        self.commands += 1
        name = str(self.commands)
        (self.job / "run" / f"{name}.sh").write_text(script, encoding="utf-8")
        self.running().channel.send(name)
        output = self.job / "run" / f"{name}.out"
        deadline = time.monotonic() + timeout
        try:
            code = self.running().channel.code(name, deadline)
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

        The host sees at once what dom0 writes: QEMU writes to the host's page cache.

        Args:
            path: The file. One that is attached already keeps its device.
            readonly: dom0 may not write to it.
            full_at: A 512-byte sector; writes that touch it fail as on a full file system.

        Returns:
            The device's name in dom0, such as "/dev/sda".

        Raises:
            LabError: There is no such file, or QEMU refuses it.
        """
        path = path.absolute()
        try:
            inode = (path.stat().st_dev, path.stat().st_ino)
        except OSError as error:
            raise LabError(f"{path}: {error.strerror}") from None
        # A file that was removed is still open and keeps its inode: a new one of its name is new.
        if self._attached.get(path) == inode:
            return self.devices[path]
        number, self.attached = self.attached, self.attached + 1
        self.running().plug(number, path, readonly, full_at)
        found = self.sh(
            f"while true; do\n"
            f"    for disk in /sys/bus/scsi/devices/*:0:{number}:0/block/*; do\n"
            f'        name=/dev/"${{disk##*/}}"; true <"$name" && echo "$name" && exit 0\n'
            f"    done; usleep 50000\n"
            f"done 2>/dev/null"
        )
        self.devices[path], self._attached[path] = found.strip(), inode
        return self.devices[path]

    def detach(self, path: Path) -> None:
        """Detach a disk from dom0; no guest may be using it."""
        self.qmp.ask("device_del", time.monotonic() + WAIT_SECONDS, id=self.qdev(path))
        device = self.devices.pop(path.absolute())
        del self._attached[path.absolute()]
        self.sh(f"while [ -b {device} ]; do usleep 50000; done")

    def qdev(self, path: Path) -> str:
        """Return QEMU's name for the disk of an attached file. Raises LabError."""
        found = [
            str(block["qdev"])
            for block in self.qmp.ask("query-block", time.monotonic() + WAIT_SECONDS)
            if (block.get("inserted") or {}).get("file") == str(path.absolute())
        ]
        if not found:
            raise LabError(f"{path} is not attached")
        return found[-1]  # an earlier one is a file of this name that was removed

    def create(self, guest: Guest, timeout: float = WAIT_SECONDS, paused: bool = False) -> Domain:
        """Start a guest.

        Args:
            guest: The guest.
            timeout: Seconds, for xl create alone.
            paused: Leave it paused (`xl unpause` starts it).

        Raises:
            LabError: A file that it names is missing, its name is taken, or xl refuses it.
        """
        return Domain.create(self, guest, timeout, paused)

    def boot(self, guest: Guest, timeout: float = WAIT_SECONDS, lasting: bool = False) -> Domain:
        """Start a guest with `kernel: debian` and wait until its init does the guest's `run`.

        Under this emulation a guest now and then stands still for ever while it starts its second
        CPU (see docs/lab.md); such a guest is destroyed and started once more.

        Args:
            guest: The guest.
            timeout: Seconds, for xl create and for the boot each.
            lasting: Keep none of its files in the job folder, so that it runs without that folder.

        Raises:
            LabError: As create().
            LabTimeout: Its init has not begun `run` in time, or it stood still twice.
        """
        domain = Domain.create(self, guest, timeout, paused=False, lasting=lasting)
        if domain.wait_init(timeout):
            return domain
        domain.destroy()
        guest = replace(guest, name=f"{guest.name}-again")
        domain = Domain.create(self, guest, timeout, paused=False, lasting=lasting)
        if domain.wait_init(timeout):
            return domain
        raise LabTimeout(f"guest {guest.name} stood still twice\n{self.tails()}")

    def boot_installed(self, layout: str = "ext4", **fields: Any) -> Installed:
        """Boot a guest with an installed Debian, and wait until it has booted.

        Args:
            layout: What is on its disk; one of install.LAYOUTS.
            fields: Fields of a guest, as docs/lab.md has them.

        Raises:
            LabError: The disk cannot be made, or a field is wrong.
            LabTimeout: It has not booted in time.
        """
        return Installed.boot(self, layout, **fields)

    @contextlib.contextmanager
    def stalled(self) -> Iterator[None]:
        """Stop xenstored until the block ends; a program that asks it, such as xl, waits."""
        self.sh(f"kill -STOP $(pidof {self.xenstored})")
        try:
            yield
        finally:
            self.sh(f"kill -CONT $(pidof {self.xenstored})")

    def interrupt(self) -> None:
        """Give the machine a device's interrupt; dom0/init says what for. Raises LabError."""
        self.running().channel.send("")

    @property
    def qmp(self) -> Qmp:
        """Return the connection to QEMU's machine protocol."""
        return self.running().qmp

    def log(self) -> str:
        """Return Xen's console so far; guests' output to port 0xE9 is in it as (dN) lines."""
        return _text(self.workdir / "xen.log")

    def tails(self) -> str:
        """Return the last lines of all logs, for an error message."""
        text = [f"--- Xen's console\n{_tail(self.log())}"]
        logs = sorted((self.job / "log").rglob("*"), key=lambda p: p.name)
        for path in logs:
            if path.is_file() and (content := path.read_text(errors="replace")).strip():
                text.append(f"--- {path.relative_to(self.job)}\n{_tail(content)}")
        return "\n".join(text)

    def settle(self, workdir: Path) -> None:
        """Set the folder for the logs and the job folder."""
        self.workdir, self.job = workdir, workdir / "job"

    def running(self) -> Qemu:
        """Return QEMU. Raises LabError when it is not running."""
        if not self.qemu:
            raise LabError("Xen is not running")
        return self.qemu

    def clear(self) -> None:
        """Empty the job folder and make its folders, before a machine starts."""
        shutil.rmtree(self.job, ignore_errors=True)
        (self.workdir / "xen.log").unlink(missing_ok=True)
        for name in ("run", "log/xen/console", "guest"):
            (self.job / name).mkdir(parents=True, exist_ok=True)

    def _boot(self, machine: Machine) -> None:
        self.clear()
        with self.progress.stage("boot Xen") as stage:
            self.start(Qemu(machine, self.workdir, self.job))
            self.tell("mount_job", "move_logs")
            stage.note(f"{self.suite}, {self.xenstored}")
        if self.prompted:
            self.prompt = Prompt.boot(self, self.prompted)
        if self.pvdump:
            python.put(self)
        if self.ready:
            self.installed = Installed.boot(self, self.ready.layout, **self.ready.fields)
            self.ready.prepare(self.installed)

    def start(self, qemu: Qemu) -> None:
        """Wait until dom0 of a machine that boots is ready. Raises LabError with the logs."""
        self.qemu = qemu
        try:
            qemu.booted()
        except LabError as error:
            raise type(error)(f"booting Xen ({WAIT_SECONDS} s): {error}\n{self.tails()}") from None

    def _restore(self, machine: Machine, saved: Base) -> bool:
        """Restore a base and return True; if that fails, remove the base and return False."""
        self.clear()
        shutil.copyfile(saved.log, self.workdir / "xen.log")
        try:
            with self.progress.stage("restore Xen") as stage:
                files = saved.copy_disks(self.workdir)
                self.qemu = Qemu(machine, self.workdir, self.job, saved=files)
                self.tell("mount_job", "move_logs", timeout=RESTORE_SECONDS)
                stage.note(f"{self.suite}, {self.xenstored}")
        except LabError as error:
            if self.qemu:
                self.qemu.kill()
                self.qemu = None
            saved.discard()
            warnings.warn(f"a saved Xen cannot be restored, so one boots: {error}", stacklevel=2)
            return False
        self.adopt(saved)
        if self.prompted:
            self.prompt = Prompt(self, self.prompted, saved.facts["domid"], {})
        if self.ready:
            self.installed = Installed.adopt(self, self.ready, saved.facts)
        return True

    def adopt(self, saved: Base) -> None:
        """Take over the disks of a base, which are attached."""
        self.attached = saved.facts["attached"]
        for name, device, _ in saved.facts["disks"]:
            path = self.workdir / name
            self.devices[path] = device
            self._attached[path] = (path.stat().st_dev, path.stat().st_ino)

    def tell(self, *words: str, timeout: float = WAIT_SECONDS) -> None:
        """Run commands of dom0's init: "mount_job", "umount_job", "move_logs". Raises LabError."""
        channel = self.running().channel
        for word in words:
            channel.send(word)
            if code := channel.code(word, time.monotonic() + timeout):
                raise LabError(f"dom0's init: {word}: exit {code}\n{self.tails()}")


def _text(path: Path) -> str:
    return path.read_text(errors="replace") if path.exists() else ""


def _first(script: str) -> str:
    lines = script.strip().splitlines() or [""]
    return lines[0] + (" ..." if len(lines) > 1 else "")


def _tail(text: str) -> str:
    return "\n".join(text.strip().splitlines()[-TAIL:])
