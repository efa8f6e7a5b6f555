"""Two connections to the outer QEMU, both over socket pairs that QEMU inherits.

Used by lab.xen: `Channel` carries the commands to dom0 (see dom0/init) and `Qmp` attaches disks.
The rule: every wait has a time limit, and ends at once when QEMU has ended. Source: QEMU's
docs/interop/qmp-spec.txt.
"""

from __future__ import annotations

import json
import socket
import time
from typing import Any

from lab import LabError, LabTimeout


class Lines:
    """Lines are sent and received as text over a socket pair.

    Attributes:
        theirs: The end that QEMU inherits.
    """

    def __init__(self, what: str) -> None:
        self.what = what
        self.ours, self.theirs = socket.socketpair()
        self.rest = b""

    def send(self, line: str) -> None:
        """Send a line. Raises LabError when QEMU has ended."""
        try:
            self.ours.sendall(line.encode() + b"\n")
        except OSError as error:
            raise LabError(f"{self.what}: cannot send {line!r}: {error.strerror}") from None

    def receive(self, deadline: float) -> str:
        """Return the next line.

        Args:
            deadline: A time.monotonic() value.

        Raises:
            LabTimeout: There is none at the deadline.
            LabError: QEMU has ended.
        """
        while b"\n" not in self.rest:
            left = deadline - time.monotonic()
            if left <= 0:
                raise LabTimeout(f"{self.what}: no answer in time")
            self.ours.settimeout(left)
            try:
                part = self.ours.recv(65536)
            except TimeoutError:
                continue
            except OSError:
                part = b""
            if not part:
                raise LabError(f"{self.what}: QEMU has ended")
            self.rest += part
        line, _, self.rest = self.rest.partition(b"\n")
        return line.decode(errors="replace").rstrip("\r")

    def close(self) -> None:
        """Close both ends."""
        self.ours.close()
        self.theirs.close()


class Channel(Lines):
    """A Channel sends commands to dom0: names go out, "NAME EXITCODE" comes back, in any order."""

    def __init__(self) -> None:
        super().__init__("dom0's command channel")
        self.codes: dict[str, int] = {}

    def ready(self, deadline: float) -> str:
        """Wait for dom0's init; returns the daemon's name, which it sends after "ready"."""
        while True:
            word, _, rest = self.receive(deadline).partition(" ")
            if word == "ready":
                return rest

    def code(self, name: str, deadline: float) -> int:
        """Wait for the exit code of a command that was sent, and return it."""
        while name not in self.codes:
            done, _, code = self.receive(deadline).partition(" ")
            self.codes[done] = int(code)
        return self.codes.pop(name)


class Qmp(Lines):
    """Qmp speaks QEMU's machine protocol."""

    def __init__(self) -> None:
        super().__init__("QEMU's monitor")

    def greet(self, deadline: float) -> None:
        """Take the greeting and leave the negotiation mode."""
        self.receive(deadline)
        self.ask("qmp_capabilities", deadline=deadline)

    def ask(self, command: str, deadline: float, **arguments: Any) -> Any:
        """Run a command and return its result. Events that come before are dropped."""
        self.send(json.dumps({"execute": command, "arguments": arguments}))
        while True:
            answer = json.loads(self.receive(deadline))
            if "error" in answer:
                raise LabError(f"QEMU, {command}: {answer['error']['desc']}")
            if "return" in answer:
                return answer["return"]
