"""A guest with an installed Debian: it boots by itself, from its disk, with systemd.

Made by lab.xen's boot_installed(). The rule: it is one guest across its reboots, though xl makes a
new domain each time; what it printed before its last boot is of no interest to a wait.
"""

from __future__ import annotations

import base64
import shlex
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from lab import WAIT_SECONDS, LabError, install
from lab.domain import CLOSE, Domain
from lab.guest import Disk, Guest, image, xl_disk

if TYPE_CHECKING:
    from lab.xen import Xen

MEMORY = 512  # MiB
LONGEST = 4000  # bytes of a line that a terminal takes
# The virtual device that brings files.
BRINGER = "xvdz"
RECEIVE = f"""\
until true </dev/{BRINGER}; do sleep 0.1; done 2>/dev/null
tar -x --no-same-owner -C / -f /dev/{BRINGER}
"""


class Done(NamedTuple):
    """What a script has done: its exit code, and its standard output and error together."""

    code: int
    output: str


class Installed(Domain):
    """An Installed is a guest that boots its own disk; see Domain."""

    _seen = 0  # place in its console's log where the last boot's output begins
    _scripts = 0  # number of those that ran

    @classmethod
    def boot(cls, xen: Xen, layout: str, **fields: Any) -> Installed:
        """Boot a guest from a copy of an installed disk, and wait until it has booted.

        Args:
            xen: The Xen to boot it on.
            layout: One of install.LAYOUTS.
            fields: Fields of a guest, as docs/lab.md has them.
        """
        name = str(fields.get("name", "installed"))
        disk = xen.workdir / f"{name}.img"
        install.copy(xen.suite, layout, disk, xen.progress)
        kind = {"name": name, "type": "hvm", "kernel": "disk", "memory": MEMORY}
        ends = {"on_reboot": "restart", "on_watchdog": "restart"}
        extra = {"tsc_mode": "native"}  # or Xen traps each look at the clock
        disks = [{"vdev": "xvda", "file": str(disk)}, *fields.pop("disks", [])]
        guest = Guest.parse({**kind, **ends, "extra": extra, **fields, "disks": disks})
        created = xen.create(guest)
        domain = cls(xen, guest, created.domid, created.files)
        domain.wait_boot()
        return domain

    def console(self) -> str:
        """Return the output of its PV console since its last boot that was waited for."""
        return super().console()[self._seen :]

    def wait_boot(self, timeout: float = WAIT_SECONDS) -> None:
        """Wait until it has booted once more, and systemd has started its units.

        Raises:
            LabTimeout: It has not in time.
        """
        match = self.wait_console(r"^lab: agent \S+\n", timeout)
        self._seen += match.end()
        self.tty = ""
        self.domid = int(self.xen.sh(f"xl domid {self.guest.name}"))
        self.xen.sh(f"xenstore-write {CLOSE}/{self.domid} ''")
        self.run("systemctl is-system-running --wait", timeout, check=False)

    def run(self, script: str, timeout: float = WAIT_SECONDS, check: bool = True) -> Done:
        """Run a script of sh as root.

        Args:
            script: Its lines.
            timeout: Seconds.
            check: Raise if the exit code is not 0.

        Raises:
            LabError: The script is too long, or its exit code is not 0.
            LabTimeout: It has not ended in time.
        """
        number = self._start(script)
        match = self.wait_console(rf"^lab: done {number} (\d+) (\S*)\n", timeout)
        done = Done(int(match[1]), base64.b64decode(match[2]).decode(errors="replace"))
        if check and done.code:
            first = script.strip().partition("\n")[0]
            raise LabError(f"in {self.guest.name}, exit {done.code}: {first}\n{done.output}")
        return done

    def crash(self) -> None:
        """Panic its kernel."""
        self._start("echo c >/proc/sysrq-trigger")

    def reboot(self) -> None:
        """Reboot it as a person does, and wait until it has booted. Raises LabTimeout."""
        self._start("systemctl reboot")
        self.wait_boot()

    def put(self, files: Mapping[str, str | Path]) -> None:
        """Copy files of the host into it, through a disk that is plugged in for that.

        Args:
            files: A dict from each file's absolute name in the guest to a file of the host.

        Raises:
            LabError: A file does not exist.
        """
        archive = self.xen.workdir / f"{self.guest.name}-{BRINGER}.tar"
        with tarfile.open(archive, "w") as packed:
            for name, path in files.items():
                packed.add(image(str(path)), name.lstrip("/"))
        spec = "script=block," + xl_disk(Disk(BRINGER, file=archive), self.xen.attach(archive))
        self.xen.sh(f"xl block-attach {self.domid} {shlex.quote(spec)}")
        self.run(RECEIVE)
        self.xen.sh(f"xl block-detach {self.domid} {BRINGER}")
        self.xen.detach(archive)

    def _start(self, script: str) -> int:
        """Have the agent run a script; returns its number."""
        self._scripts += 1
        line = f"{self._scripts} {base64.b64encode(script.encode()).decode()}"
        if len(line) > LONGEST:
            raise LabError(f"run: {len(script)} bytes are too many for a line; put() a file")
        self.type(line)
        return self._scripts
