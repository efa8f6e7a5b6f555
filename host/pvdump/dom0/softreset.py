"""xenstore's part of a soft reset: the guest is introduced again, with its new event channels.

Used by daemon.py. The rule: it may be done twice.
Source: xen-api ocaml/xenopsd/xc/domain.ml (soft_reset); Xen docs/misc/xenstore.txt (INTRODUCE,
RESUME), tools/console/daemon/io.c (console_create_ring).
"""

from __future__ import annotations

from typing import Any

from ..xenstore.store import Store

# What the dead kernel said that it can do.
REMOVED = (
    *("control/feature-suspend", "control/feature-poweroff", "control/feature-reboot"),
    *("control/feature-vcpu-hotplug", "control/feature-balloon"),
)


def introduce(store: Store, domid: int, gfn: int, store_port: int, console_port: int) -> None:
    """Tell xenstored and xenconsoled of a domain's new event channels.

    Args:
        gfn: the frame of its xenstore ring.
        store_port, console_port: unbound ports of the domain's, for dom0.

    Raises: XenError.
    """
    home = f"/local/domain/{domid}"
    store.call(lambda client: client.introduce(domid, gfn, store_port))
    # xenstored tells of the domain's next end only then.
    store.call(lambda client: client.resume(domid))

    async def work(transaction: Any) -> None:
        for name in REMOVED:
            if await transaction.find(f"{home}/{name}") is not None:
                await transaction.rm(f"{home}/{name}")
        await transaction.write(f"{home}/store/port", str(store_port))
        # xenconsoled watches this node, and binds the port, also one of the same number.
        await transaction.write(f"{home}/console/port", str(console_port))

    store.transact(work)
