"""A guest, alone on its Xen: for tests that need one domain only.

    guest = EmbeddedGuest(seed=1, server_features=1)
    disk = guest.disk("xvdb", Memory(1 << 20), error_after=65536)
    ... drivers and firmware run on `hw`, which is attached to guest.machine ...
    disk.sink.data, disk.states, guest.store.read("/local/domain/1/...")

crashedkernel.CrashedKernel then leaves what a crashed kernel leaves. For more than one
domain, and for what a toolstack does to them, see toolstack.py.
"""

from __future__ import annotations

from collections.abc import Mapping

import hw

from .clock import SECOND
from .domain import EmbeddedDomain
from .toolstack import SERVERS, Toolstack


class EmbeddedGuest(EmbeddedDomain):
    """An embedded domain with a toolstack of its own; `hw` is attached to its machine.

    Args:
        size: bytes of RAM.
        seed, now, server, quotas: of Toolstack.
        options: of EmbeddedDomain.
    """

    def __init__(
        self,
        size: int = 16 << 20,
        *,
        seed: int = 0,
        now: int = 1000 * SECOND,
        server: str = SERVERS[0],
        quotas: Mapping[str, int] | None = None,
        **options: object,
    ) -> None:
        toolstack = Toolstack(seed, now=now, server=server, quotas=quotas)
        super().__init__(toolstack, size=size, **options)  # type: ignore[arg-type]
        hw.attach(self.machine)
