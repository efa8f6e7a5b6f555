"""A guest, alone on its Xen: the way in for tests that need no more.

    guest = EmbeddedGuest(seed=1, server_features=1)
    disk = guest.disk("xvdb", Memory(1 << 20), error_after=65536)
    ... drivers and firmware run on `hw`, which is attached to guest.machine ...
    disk.sink.data, disk.states, guest.store.read("/local/domain/1/...")

earlier.EarlierKernel then leaves what a kernel that crashed would have left. For more than one
domain, and what becomes of them, see toolstack.py.
"""

from __future__ import annotations

from collections.abc import Mapping

import hw

from .clock import SECOND
from .domain import Domain
from .toolstack import SERVERS, Toolstack


class EmbeddedGuest(Domain):
    """seed, now, server, quotas: of Toolstack; options: of Domain. Attaches `hw` to the machine."""

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
