"""What xl asks of a guest by its node control/shutdown, and how it waits for what it asked.

Used by tests. Rules are libxl's: an HVM guest that has set no callback has no PV drivers, and is
not asked; 60 s are left for the acknowledgement of a suspension, and 60 s more for the suspension.
Source: Xen tools/libs/light/libxl_domain.c (libxl__domain_pvcontrol), libxl_dom_suspend.c.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from xenpv import abi

from .clock import SECOND

if TYPE_CHECKING:
    from .domain import EmbeddedDomain

PATIENCE = 60 * SECOND
SUSPEND = "suspend"


class Refused(Exception):
    """xl does not ask this guest."""


def ask(domain: EmbeddedDomain, command: str) -> None:
    """Ask a guest for a shutdown, as `xl shutdown` and `xl reboot` do. Raises Refused."""
    if not domain.machine.params.get(abi.HVM_PARAM_CALLBACK_IRQ):
        raise Refused(f"domain {domain.domid}: PV control interface not available")
    domain.store.write(f"{domain.home}/control/shutdown", command)


class Suspension:
    """A suspension that xl asks for; when the guest has suspended, `then` is done.

    Args:
        domain: whose.
        then: called with the domain's number, such as Toolstack.migrate.

    Attributes:
        outcome: "suspended", else why not; None until it is known.

    Raises: Refused.
    """

    def __init__(self, domain: EmbeddedDomain, then: Callable[[int], None]) -> None:
        self.outcome: str | None = None
        self._domain = domain
        self._then = then
        self._node = f"{domain.home}/control/shutdown"
        self._acknowledged = False
        ask(domain, SUSPEND)
        self._timer = domain.xen.clock.after(PATIENCE, self._late)
        for path in (self._node, "@releaseDomain"):
            domain.store.watch(path, self._look)

    def _look(self) -> None:
        self._domain.xen.clock.soon(self._step)

    def _step(self) -> None:
        domain = self._domain
        if self.outcome is not None:
            return
        if not self._acknowledged:
            if domain.store.read(self._node, "") == SUSPEND:
                return
            self._acknowledged = True
            domain.xen.clock.cancel(self._timer)
            self._timer = domain.xen.clock.after(PATIENCE, self._late)
        reason = domain.shutdown_reason
        if reason == abi.SHUTDOWN_suspend:
            self._end("suspended")
            self._then(domain.domid)
        elif reason is not None:
            self._end(f"it has shut down, reason {reason}")

    def _late(self) -> None:
        if self.outcome is not None:
            return
        if self._acknowledged:
            self._end("it did not suspend")
        else:
            self._domain.store.write(self._node, "")
            self._end("it did not acknowledge the request, which was withdrawn")

    def _end(self, outcome: str) -> None:
        self.outcome = outcome
        self._domain.xen.clock.cancel(self._timer)
        for path in (self._node, "@releaseDomain"):
            self._domain.store.unwatch(path, self._look)
