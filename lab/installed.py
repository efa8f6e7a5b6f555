"""A guest with an installed Debian: it boots by itself, from its disk, with systemd.

Made by lab.xen's boot_installed(). The rule: it is one guest across its reboots, though xl makes a
new domain each time; what it printed before its last boot is of no interest to a wait.
"""

from __future__ import annotations

import base64
import re
import shlex
import shutil
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass, field
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
# Of a terminal: CSI, and OSC. Source: ECMA-48, 5.4; XTerm Control Sequences.
SEQUENCE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\))")
RECEIVE = f"""\
until true </dev/{BRINGER}; do sleep 0.1; done 2>/dev/null
tar -x --no-same-owner -C / -f /dev/{BRINGER}
"""


class Done(NamedTuple):
    """What a script has done: its exit code, and its standard output and error together."""

    code: int
    output: str


@dataclass(frozen=True)
class Ready:
    """A Ready is an installed guest that has booted, as a base has it; see lab.base.

    Attributes:
        layout: One of install.LAYOUTS.
        name: Of what it has done since; "" for nothing.
        files: Name in the guest and file of the host, of each file put into it.
        script: Lines of sh that it has run then; after them it was rebooted.
        fields: Of the guest, as docs/lab.md has them.
    """

    layout: str
    name: str = ""
    files: tuple[tuple[str, Path], ...] = ()
    script: str = ""
    fields: Mapping[str, Any] = field(default_factory=dict)

    def prepare(self, guest: Installed) -> None:
        """Have a guest that has booted do what it is to have done. Raises LabError."""
        if self.name:
            guest.put(dict(self.files))
            guest.run(self.script)
            guest.reboot()


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
        guest = _guest(xen, fields)
        install.copy(xen.suite, layout, _disk(xen, guest.name), xen.progress)
        created = xen.create(guest)
        domain = cls(xen, guest, created.domid, created.files)
        domain.wait_boot()
        return domain

    @classmethod
    def adopt(cls, xen: Xen, ready: Ready, facts: Mapping[str, Any]) -> Installed:
        """Return the guest of a base that was restored; `facts` are those of facts()."""
        domain = cls(xen, _guest(xen, ready.fields), facts["domid"], {})
        domain._seen, domain._scripts = facts["seen"], facts["scripts"]
        return domain

    def facts(self) -> dict[str, int]:
        """Return what adopt() needs, for a base that is saved."""
        return {"domid": self.domid, "seen": self._seen, "scripts": self._scripts}

    def console(self) -> str:
        """Return the output of its PV console since its last boot that was waited for.

        It is without the control sequences with which systemd sets up the terminal.
        """
        return SEQUENCE.sub("", super().console())[self._seen :]

    def wait_boot(self, timeout: float = install.LONG_SECONDS) -> None:
        """Wait until it has booted once more, and systemd has started its units.

        Raises:
            LabTimeout: It has not in time.
        """
        match = self.wait_console(r"^lab: agent \S+\n", timeout)
        self._seen += match.end()
        self.find_again()
        self.run("systemctl is-system-running --wait", timeout, check=False)

    def migrate(self) -> None:
        """Migrate it to the host that it runs on."""
        super().migrate()
        self._seen = 0

    def find_again(self) -> None:
        """Find the domain that xl has made of it: it was restored, or has booted."""
        super().find_again()
        self.xen.sh(f"xenstore-write {CLOSE}/{self.domid} ''")

    @property
    def disk(self) -> Path:
        """Return the file of its first disk; the host sees at once what it writes."""
        return _disk(self.xen, self.guest.name)

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

    def start(self) -> None:
        """Start it again from its disk, after it has ended; wait_boot() waits for its boot."""
        self.wait_until(lambda: self.state() == "gone", "its domain to be destroyed")
        self._seen += len(self.console())
        shutil.rmtree(self.xen.job / "guest" / self.guest.name, ignore_errors=True)
        self.domid, self.tty = self.xen.create(self.guest).domid, ""

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


def _guest(xen: Xen, fields: Mapping[str, Any]) -> Guest:
    """Return a guest that boots from its own disk; `fields` replace those that it has else."""
    name = str(fields.get("name", "installed"))
    kind = {"name": name, "type": "hvm", "kernel": "disk", "memory": MEMORY}
    ends = {"on_reboot": "restart", "on_watchdog": "restart"}
    # With another TSC, Xen traps each look at the clock.
    extra = {"tsc_mode": "native", **fields.get("extra", {})}
    first = {"vdev": "xvda", "file": str(_disk(xen, name))}
    disks = [first, *fields.get("disks", [])]
    return Guest.parse({**kind, **ends, **fields, "extra": extra, "disks": disks})


def _disk(xen: Xen, name: str) -> Path:
    return xen.workdir / f"{name}.img"
