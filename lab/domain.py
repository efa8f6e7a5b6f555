"""A guest that was started: its console, its state, its end.

Made by lab.xen's create(). The rule: a guest is addressed by its domain ID, because a domain has no
name for a moment during a soft reset; and every wait is bounded.
"""

from __future__ import annotations

import re
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING

from lab import LabError, LabTimeout, linux
from lab.guest import IMAGES, Guest

if TYPE_CHECKING:
    from lab.xen import Xen

STUCK_SECONDS = 40
POLL = 0.05  # s between two looks at a log
REASONS = ("poweroff", "reboot", "suspend", "crash", "watchdog", "soft-reset")


class Domain:
    """A guest on a running Xen.

    domid: Xen's number for it.
    console_log: file on the host that grows with what the guest writes to its PV console.
    serial_log: the same of its first serial port (HVM).
    files: the host file behind each of its disks, by vdev.
    """

    def __init__(self, xen: Xen, guest: Guest, domid: int, files: dict[str, Path]) -> None:
        self.xen, self.guest, self.domid, self.files = xen, guest, domid, files
        logs = xen.job / "log/xen"
        self.console_log = logs / f"console/guest-{guest.name}.log"
        self.serial_log = logs / f"serial-{guest.name}.log"
        self.xl_log = logs / f"xl-{guest.name}.log"

    @classmethod
    def create(cls, xen: Xen, guest: Guest, timeout: float, paused: bool) -> Domain:
        """Write the guest's files into the job folder and start it."""
        folder = xen.job / "guest" / guest.name
        if folder.exists():
            raise LabError(f"a guest {guest.name!r} was started on this Xen; give another name")
        folder.mkdir(parents=True)
        files, devices = {}, []
        for disk in guest.disks:
            path = disk.file
            if path is None:
                path = xen.workdir / f"{guest.name}-{disk.vdev}.img"
                with path.open("wb") as stream:
                    stream.truncate(disk.size << 20)
            files[disk.vdev] = path
            devices.append(xen.attach(path))
        if guest.linux:
            linux.put(folder, xen.suite, guest, xen.progress)
        else:
            shutil.copyfile(image(guest.kernel), folder / "kernel")
        if guest.type == "firmware":
            (folder / "module").write_text(guest.run or "\n", encoding="utf-8")
        inside = f"/job/guest/{guest.name}"
        if guest.boots_from_disk:
            devices.append(xen.attach(folder / linux.BOOT))
        (folder / "xl.cfg").write_text(guest.config(inside, devices), encoding="utf-8")
        # Paused first: a guest that ends at once would be gone before its number is known.
        create = f"xl create -p {inside}/xl.cfg 2>&1 || exit 1"
        begin = "" if paused else f"; xl unpause {guest.name}"
        output = xen.sh(f"{create}; xl domid {guest.name}{begin}", timeout)
        domid = int(output.split()[-1])
        return cls(xen, guest, domid, files)

    def console(self) -> str:
        """The PV console so far."""
        return _text(self.console_log)

    def debug(self) -> str:
        """What the guest wrote to port 0xE9 so far, taken from Xen's console."""
        mark = re.compile(rf"\(d{self.domid}\) ?(.*)")
        found = (mark.search(line) for line in self.xen.log().splitlines())
        return "".join(f"{match[1]}\n" for match in found if match)

    def wait_console(self, pattern: str, timeout: float = 60) -> re.Match[str]:
        """Wait until the PV console has `pattern` (a regular expression, ^ and $ by line)."""
        return self._wait(pattern, timeout, "its console", self.console)

    def wait_debug(self, pattern: str, timeout: float = 60) -> re.Match[str]:
        """Wait until port 0xE9 has `pattern`."""
        return self._wait(pattern, timeout, "port 0xE9", self.debug)

    def wait_init(self, timeout: float) -> bool:
        """Wait until Linux' init is in its `run`; False when it stands still before.

        Raises LabTimeout when it does neither in `timeout` s.
        """
        deadline = time.monotonic() + timeout
        since = time.monotonic()
        while time.monotonic() < deadline:
            text = self.console()
            if re.search(r"^lab: run$", text, re.MULTILINE):
                return True
            if not text.rstrip().endswith("x86: Booting SMP configuration:"):
                since = time.monotonic()
            elif time.monotonic() - since > STUCK_SECONDS:
                return False
            time.sleep(POLL)
        what = f"guest {self.guest.name}: waited {timeout:g} s for its init"
        raise LabTimeout(f"{what}\n{self.xen.tails()}")

    def _wait(self, pattern: str, timeout: float, where: str, read: object) -> re.Match[str]:
        deadline = time.monotonic() + timeout
        while True:
            text = read()  # type: ignore[operator]
            if match := re.search(pattern, text, re.MULTILINE):
                return match
            if time.monotonic() > deadline:
                what = f"guest {self.guest.name}: waited {timeout:g} s for {pattern!r} on {where}"
                raise LabTimeout(f"{what}\n{self.xen.tails()}")
            time.sleep(POLL)

    def state(self) -> str:
        """xl list's state letters ("r-----", "---sc-"), or "gone"."""
        for line in self.xen.sh("xl list").splitlines()[1:]:
            words = line.split()
            if len(words) >= 6 and words[-5] == str(self.domid):
                return words[-2]
        return "gone"

    def reasons(self) -> list[str]:
        """Why it shut down, once for each time, oldest first; see REASONS."""
        numbers = re.findall(r"has shut down, reason code (\d+)", _text(self.xl_log))
        return [REASONS[int(n)] if int(n) < len(REASONS) else n for n in numbers]

    def ended(self) -> bool:
        """Whether it has shut down for another reason than a soft reset (cheap: reads xl's log)."""
        return any(reason != "soft-reset" for reason in self.reasons())

    def wait_end(self, timeout: float = 60) -> str:
        """Wait until it has shut down for another reason than a soft reset; gives the reason."""
        deadline = time.monotonic() + timeout
        while True:
            ends = [reason for reason in self.reasons() if reason != "soft-reset"]
            if ends:
                return ends[-1]
            if time.monotonic() > deadline:
                what = f"guest {self.guest.name}: waited {timeout:g} s for its end"
                raise LabTimeout(f"{what}; state {self.state()}\n{self.xen.tails()}")
            time.sleep(POLL)

    def destroy(self) -> None:
        """End it now; no error when it is gone."""
        self.xen.sh(f"xl destroy {self.domid}", check=False)


def image(name: str) -> Path:
    """The file that `kernel:` or an entry of `files:` names."""
    path = IMAGES.get(name, Path(name))
    if not path.is_file():
        hint = "; run ./build.py image first" if name in IMAGES else ""
        raise LabError(f"no file {path}{hint}")
    return path


def _text(path: Path) -> str:
    return path.read_text(errors="replace") if path.exists() else ""
