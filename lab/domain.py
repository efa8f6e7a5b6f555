"""A guest that was started: its console, its state, its end.

Made by lab.xen's create(). The rule: a guest is addressed by its domain ID, because a domain has no
name for a moment during a soft reset; and every wait is bounded.
"""

from __future__ import annotations

import re
import shlex
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from lab import WAIT_SECONDS, LabError, LabTimeout, bootdisk, linux
from lab.guest import Guest, image

if TYPE_CHECKING:
    from lab.xen import Xen

STUCK_SECONDS = 40
POLL = 0.05  # s between two looks at a log
CLOSE = "/lab/close"  # in xenstore; see lab-domain.c
INTERRUPTING = re.compile(r"([^\s>])(?=\[ *\d+\.\d{6}\] )")
REASONS = ("poweroff", "reboot", "suspend", "crash", "watchdog", "soft-reset")


class Ring(NamedTuple):
    """A Ring has the indexes of a guest's xenstore ring, which are free-running u32."""

    req_prod: int
    req_cons: int
    rsp_prod: int
    rsp_cons: int

    @property
    def requests(self) -> int:
        """Return how many bytes xenstored has not read yet."""
        return self.req_prod - self.req_cons & 0xFFFFFFFF

    @property
    def replies(self) -> int:
        """Return how many bytes the guest has not read yet."""
        return self.rsp_prod - self.rsp_cons & 0xFFFFFFFF


class BlockRing(NamedTuple):
    """A BlockRing has the indexes of a block ring, which are free-running u32."""

    req_prod: int
    rsp_prod: int

    @property
    def unanswered(self) -> int:
        """Return how many requests the backend has not answered yet."""
        return self.req_prod - self.rsp_prod & 0xFFFFFFFF


class Domain:
    """A Domain is a guest on a running Xen.

    Attributes:
        domid: Xen's number for it.
        console_log: File on the host to which dom0 appends the output of its PV console.
        serial_log: The same for its first serial port (HVM).
        files: The host file behind each of its disks, by vdev.
    """

    def __init__(self, xen: Xen, guest: Guest, domid: int, files: dict[str, Path]) -> None:
        self.xen, self.guest, self.domid, self.files = xen, guest, domid, files
        logs = xen.job / "log/xen"
        self.console_log = logs / f"console/guest-{guest.name}.log"
        self.serial_log = logs / f"serial-{guest.name}.log"
        self.tty = ""
        self._interrupted = 0.0  # when, by time.monotonic()
        self.before = 0  # number of its ends when it was resumed

    @classmethod
    def create(
        cls, xen: Xen, guest: Guest, timeout: float, paused: bool, lasting: bool = False
    ) -> Domain:
        """Write the guest's files into the job folder and start it.

        Args:
            xen: The Xen to start it on.
            guest: The guest.
            timeout: Seconds, for xl create alone.
            paused: Leave it paused.
            lasting: Keep none of its files in the job folder, so that it runs without that folder.

        Raises:
            LabError: A file that it names is missing, its name is taken, or xl refuses it.
        """
        guest.check()
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
        elif guest.boots_from_disk:
            if guest.type == "pvh":
                shutil.copyfile(bootdisk.pvh(xen.suite, xen.progress), folder / "kernel")
        else:
            shutil.copyfile(image(guest.kernel), folder / "kernel")
        if guest.ramdisk:
            shutil.copyfile(image(guest.ramdisk), folder / "ramdisk")
        if guest.type == "firmware":
            (folder / "module").write_bytes(guest.text() or (guest.run or "\n").encode())
        elif guest.script:
            (folder / "ramdisk").write_bytes(guest.text())
        inside = f"/job/guest/{guest.name}"
        if guest.boots_from_lab and lasting:
            xen.sh(f"cp {inside}/{linux.BOOT} /run/{guest.name}.img")
            devices.append(f"/run/{guest.name}.img")
        elif guest.boots_from_lab:
            devices.append(xen.attach(folder / linux.BOOT))
        (folder / "xl.cfg").write_text(guest.config(inside, devices), encoding="utf-8")
        # It starts paused: a guest that ends at once would be gone before its number is known.
        create = f"xl create -p {inside}/xl.cfg 2>&1 || exit 1"
        mark = f"xenstore-write {CLOSE}/$domid ''\n" if guest.closes_front_ends else ""
        begin = "" if paused else "xl unpause $domid\n"
        output = xen.sh(
            f"{create}\ndomid=$(xl domid {guest.name})\n{mark}{begin}echo $domid", timeout
        )
        domid = int(output.split()[-1])
        return cls(xen, guest, domid, files)

    def console(self) -> str:
        """Return the output of its PV console so far, each message of the kernel on its own line.

        Linux writes a message at any moment, also amid the line of a program.
        """
        return INTERRUPTING.sub(r"\1\n", _text(self.console_log))

    def debug(self) -> str:
        """Return the output to port 0xE9 so far, which Xen's console has."""
        mark = re.compile(rf"\(d{self.domid}\) ?(.*)")
        found = (mark.search(line) for line in self.xen.log().splitlines())
        return "".join(f"{match[1]}\n" for match in found if match)

    def wait_console(self, pattern: str, timeout: float = WAIT_SECONDS) -> re.Match[str]:
        """Wait until the PV console matches `pattern`, a regular expression with ^ and $ by line.

        Returns:
            The match.

        Raises:
            LabTimeout: It does not match within `timeout` seconds.
        """
        return self._wait(pattern, timeout, "its console", self.console)

    def wait_debug(self, pattern: str, timeout: float = WAIT_SECONDS) -> re.Match[str]:
        """Wait until the output to port 0xE9 matches `pattern`; else as wait_console()."""
        return self._wait(pattern, timeout, "port 0xE9", self.debug)

    def type(self, line: str) -> None:
        """Type a line at the PV console. The first time xenstored must run, which knows its tty."""
        if not self.tty:
            self.tty = self.xen.sh(f"xenstore-read /local/domain/{self.domid}/console/tty").strip()
        self.xen.sh(f"echo {shlex.quote(line)} >{self.tty}")

    def ring(self) -> Ring:
        """Read the indexes of its xenstore ring from its memory."""
        return Ring(*map(int, self.xen.sh(f"lab-domain ring {self.domid}").split()))

    def wait_ring(self, wanted: Callable[[Ring], bool], timeout: float = WAIT_SECONDS) -> Ring:
        """Wait until `wanted` is true of its xenstore ring, and return it. Raises LabTimeout."""
        deadline = time.monotonic() + timeout
        while not wanted(ring := self.ring()):
            if time.monotonic() > deadline:
                what = f"guest {self.guest.name}: waited {timeout:g} s for its xenstore ring"
                raise LabTimeout(f"{what}; {ring}\n{self.xen.tails()}")
        return ring

    def block_ring(self, number: int) -> BlockRing:
        """Read the indexes of the block ring of its virtual device `number` from its memory."""
        keys = f"/local/domain/{self.domid}/device/vbd/{number}/ring-ref"
        ref = f"$(xenstore-read {keys} 2>/dev/null || xenstore-read {keys}0)"
        found = self.xen.sh(f"lab-domain block {self.domid} {ref}")
        return BlockRing(*map(int, found.split()))

    def wait_block_ring(
        self, number: int, wanted: Callable[[BlockRing], bool], timeout: float = WAIT_SECONDS
    ) -> BlockRing:
        """Wait until `wanted` is true of a block ring, and return the ring. Raises LabTimeout."""
        deadline = time.monotonic() + timeout
        while not wanted(ring := self.block_ring(number)):
            if time.monotonic() > deadline:
                what = f"guest {self.guest.name}: waited {timeout:g} s for its block ring"
                raise LabTimeout(f"{what}; {ring}\n{self.xen.tails()}")
        return ring

    def wait_init(self, timeout: float = WAIT_SECONDS) -> bool:
        """Wait until Linux' init begins the lines of `run`.

        Returns:
            True then; False if the guest stands still while it starts its second CPU.

        Raises:
            LabTimeout: Neither has happened within `timeout` seconds.
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
            self._rest()
        what = f"guest {self.guest.name}: waited {timeout:g} s for its init"
        raise LabTimeout(f"{what}\n{self.xen.tails()}")

    def wait_until(
        self, wanted: Callable[[], bool], what: str, timeout: float = WAIT_SECONDS
    ) -> None:
        """Wait until `wanted` returns True; `what` names it in the error. Raises LabTimeout."""
        deadline = time.monotonic() + timeout
        while not wanted():
            if time.monotonic() > deadline:
                waited = f"guest {self.guest.name}: waited {timeout:g} s for {what}"
                raise LabTimeout(f"{waited}\n{self.xen.tails()}")
            self._rest()

    def _wait(self, pattern: str, timeout: float, where: str, read: object) -> re.Match[str]:
        deadline = time.monotonic() + timeout
        while True:
            text = read()  # type: ignore[operator]
            if match := re.search(pattern, text, re.MULTILINE):
                return match
            if time.monotonic() > deadline:
                what = f"guest {self.guest.name}: waited {timeout:g} s for {pattern!r} on {where}"
                raise LabTimeout(f"{what}\n{self.xen.tails()}")
            self._rest()

    def _rest(self) -> None:
        """Wait until the next look at a log, while the machine gets an interrupt each second."""
        if time.monotonic() - self._interrupted > 1:
            self._interrupted = time.monotonic()
            self.xen.interrupt()
        time.sleep(POLL)

    def state(self) -> str:
        """Return xl list's state letters ("r-----", "---sc-"), or "gone"."""
        for line in self.xen.sh("xl list -v").splitlines()[1:]:
            words = line.split()
            if len(words) >= 8 and words[-8] == str(self.domid):
                return words[-5]
        return "gone"

    def reasons(self) -> list[str]:
        """Return the reason of each time it has shut down, oldest first; see REASONS."""
        # lab-domain writes a line for each.
        numbers = re.findall(rf"^{self.domid} (\d+)$", _text(self.xen.job / "log/ends"), re.M)
        return [REASONS[int(n)] if int(n) < len(REASONS) else n for n in numbers]

    def ended(self) -> bool:
        """Return whether it has shut down; a soft reset that xl does is no end."""
        reset = self.guest.on_soft_reset == "soft-reset"
        ends = self.reasons()[self.before :]
        return any(reason != "soft-reset" or not reset for reason in ends)

    def wait_end(self, timeout: float = WAIT_SECONDS) -> str:
        """Wait until it has ended, as ended() says, and return the reason. Raises LabTimeout."""
        deadline = time.monotonic() + timeout
        while True:
            if self.ended():
                return self.reasons()[-1]
            if time.monotonic() > deadline:
                what = f"guest {self.guest.name}: waited {timeout:g} s for its end"
                raise LabTimeout(f"{what}; state {self.state()}\n{self.xen.tails()}")
            self._rest()

    def keep_front_ends(self) -> None:
        """Do not close its front ends at a soft reset, so that libxl waits ten seconds for them."""
        self.xen.sh(f"xenstore-rm {CLOSE}/{self.domid}")

    def resume(self) -> None:
        """Let it go on, with nothing reset, after an end for which its action is `preserve`."""
        self.before = len(self.reasons())
        self.xen.sh(f"lab-domain resume {self.domid}")

    def migrate(self) -> None:
        """Migrate it to the host that it runs on. The log of its console begins anew."""
        # With an empty command instead of ssh, xl runs what stands in the host's place.
        receive = "xl migrate-receive"
        self.xen.sh(f"xl migrate -s '' {self.domid} {shlex.quote(receive)} 2>&1 || exit 1")
        # dom0 named the log after the name that the domain has until it runs.
        self.console_log = self.console_log.with_name(f"guest-{self.guest.name}--incoming.log")
        self.find_again()

    def find_again(self) -> None:
        """Find the domain that xl has made of it."""
        self.domid, self.tty = int(self.xen.sh(f"xl domid {self.guest.name}")), ""

    def destroy(self) -> None:
        """Destroy it; a domain that is gone is no error."""
        self.xen.sh(f"xl destroy {self.domid}", check=False)


def _text(path: Path) -> str:
    return path.read_text(errors="replace") if path.exists() else ""
