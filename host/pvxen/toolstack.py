"""The toolstack of the embedded Xen: it makes, resumes, resets and destroys domains.

For tests of more than one domain:

    xen = Toolstack(seed=1)
    one, two = xen.create(1), xen.create(2)
    with xen.running(1):
        ... drivers of domain 1 run on `hw` ...
    if one.shutdown_reason == abi.SHUTDOWN_soft_reset:
        xen.soft_reset(1)

All domains share one clock, one space of event channels and one store; guest code runs in one of
them at a time, while the steps of the other side serve all. What is done to a domain, and in which
order, is what xl and libxl do. Source: Xen tools/libs/light (libxl_create.c, libxl_domain.c),
xen/common/domain.c (domain_soft_reset, domain_resume).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping

import hw
from pvdump.xenstored.domain import StoreError
from pvdump.xenstored.server import Xenstored

from . import domctl
from .blkback import BlkBack
from .clock import SECOND
from .domain import EmbeddedDomain
from .evtchn import XenRefuses
from .hypervisor import Hypervisor
from .machine import Shutdown
from .storering import RingTransport

SERVERS = ("C xenstored", "oxenstored")


class Toolstack:
    """An embedded Xen with a store, a backend and no domain.

    Args:
        seed, now: of Hypervisor.
        server: one of SERVERS, whose way to introduce a domain again is used: "C xenstored" zeroes
            the ring's indexes, "oxenstored" goes on from them.
        quotas: of the store, see Xenstored.
    """

    def __init__(
        self,
        seed: int = 0,
        *,
        now: int = 1000 * SECOND,
        server: str = SERVERS[0],
        quotas: Mapping[str, int] | None = None,
    ) -> None:
        if server not in SERVERS:
            raise ValueError(f"server: one of {', '.join(SERVERS)} expected, {server!r} found")
        self.hypervisor = Hypervisor(seed, now)
        self.clock = self.hypervisor.clock
        self.evtchn = self.hypervisor.evtchn
        self.server = server
        self.store = Xenstored(quotas=quotas)
        self.store.attach = self._introduce
        self.store.write("/local/domain/0/domid", 0)
        self.domains: dict[int, EmbeddedDomain] = {}
        self.blkback = BlkBack(self)

    def create(
        self, domid: int | None = None, size: int = 16 << 20, **options: object
    ) -> EmbeddedDomain:
        """Make a domain.

        Args:
            domid: its number; None: the next free one.
            size: bytes of RAM.
            options: of EmbeddedDomain.
        """
        if domid is None:
            domid = max(self.domains, default=0) + 1
        return EmbeddedDomain(self, domid, size, **options)  # type: ignore[arg-type]

    def domain(self, domid: int) -> EmbeddedDomain:
        """Return a domain. Raises ValueError for one that does not exist."""
        if domid not in self.domains:
            there = ", ".join(map(str, sorted(self.domains))) or "none"
            raise ValueError(f"domain {domid} is not there (there: {there})")
        return self.domains[domid]

    def _introduce(self, domid: int, gfn: int, port: int) -> RingTransport:
        """Introduce a domain for a client of the store. Raises StoreError."""
        if domid not in self.domains:
            raise StoreError("ENOENT")
        domain = self.domains[domid]
        if not domain.machine.is_ram(gfn):
            raise StoreError("EINVAL")
        try:
            return domain.introduce(gfn, port)
        except XenRefuses:
            raise StoreError("EINVAL") from None

    @contextlib.contextmanager
    def running(self, domid: int) -> Iterator[EmbeddedDomain]:
        """Run guest code of this domain in the block, which its shutdown ends.

        Raises ValueError for a domain that is paused or has shut down.
        """
        domain = self.domain(domid)
        if domain.paused or domain.shutdown_reason is not None:
            why = "paused" if domain.paused else f"shut down, reason {domain.shutdown_reason}"
            raise ValueError(f"domain {domid} cannot run: it is {why}")
        with hw.attached(domain.machine):
            try:
                yield domain
            except Shutdown:
                if domain.shutdown_reason is None:
                    raise

    def pause(self, domid: int) -> None:
        """Stop giving a domain its turns."""
        self.domain(domid).paused = True

    def unpause(self, domid: int) -> None:
        """Give a domain its turns again."""
        self.domain(domid).paused = False

    def resume(self, domid: int) -> None:
        """Let a domain that shut down go on, with nothing reset: rings, ports, grants, FIFO."""
        domain = self.domain(domid)
        domctl.resume(domain.machine)
        domain.machine.kexec()
        self.store.introduced(domid).shut_down = False

    def go_on(self, domid: int) -> None:
        """Let a domain that suspended go on as the same one, as `xl save -c` does."""
        domctl.resume(self.domain(domid).machine)
        self.store.introduced(domid).shut_down = False

    def migrate(self, domid: int, to: int | None = None, host_time: int = 0) -> None:
        """Make another domain of one that suspended, as `xl restore` and `xl migrate` do.

        Args:
            domid: its number.
            to: its next number; None: one more than any.
            host_time: what the new host's system time is ahead of the clock, ns.
        """
        domain = self.domain(domid)
        to = max(self.domains) + 1 if to is None else to
        for device in domain.disks.values():
            self.blkback.close(device)
        domain.remove_nodes()
        self.store.release(domid)
        del self.domains[domid]
        self.domains[to] = domain
        domain.move(to, host_time)

    def soft_reset(self, domid: int) -> None:
        """Reset a domain that shut down with SHUTDOWN_soft_reset; its memory stays.

        It gets its disks anew, and new ports of store and console. Grants and watchdogs stay.
        Raises XenRefuses for a domain that has not shut down.
        """
        domain = self.domain(domid)
        for device in domain.disks.values():
            self.blkback.close(device)
        domctl.soft_reset(domain.machine)
        domain.machine.kexec()
        indexes = domain.indexes() if self.server == "oxenstored" else (0, 0)
        domain.remove_nodes()
        domain.set_up(indexes)
        for name, device in list(domain.disks.items()):
            domain.attach_disk(name, device.sink, device.faults)

    def reintroduce(self, domid: int) -> None:
        """Reset a domain that shut down with SHUTDOWN_soft_reset as XCP-ng does.

        It gets new ports of store and console. Its disks stay: their backends are still connected
        to the crashed kernel's rings. Raises XenRefuses for a domain that has not shut down.
        Source: xen-api, ocaml/xenopsd/xc/domain.ml (soft_reset).
        """
        domain = self.domain(domid)
        domctl.soft_reset(domain.machine)
        domain.machine.kexec()
        domain.renew(domain.indexes() if self.server == "oxenstored" else (0, 0))

    def recover(self, domid: int, recovery: str) -> None:
        """Do what the toolstack does with a domain that wants a soft reset, one of RECOVERIES."""
        RECOVERIES[recovery](self, domid)

    def destroy(self, domid: int) -> None:
        """Destroy a domain with its disks and its nodes."""
        domain = self.domain(domid)
        for device in domain.disks.values():
            self.blkback.close(device)
        domain.remove_nodes()
        domctl.destroy(domain.machine)
        del self.domains[domid]
        self.store.release(domid)

    def settle(self) -> None:
        """Run the other side until it has nothing to do."""
        self.clock.idle()


RECOVERIES: dict[str, Callable[[Toolstack, int], None]] = {
    "soft-reset": Toolstack.soft_reset,
    "reintroduce": Toolstack.reintroduce,
    "resume": Toolstack.resume,
}
