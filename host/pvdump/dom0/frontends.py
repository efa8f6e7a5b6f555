"""The front ends of a guest that libxl soft resets, closed so that libxl does not wait for them.

Used by daemon.py for HVM guests. libxl takes the devices of a guest away before it resets it: it
sets each backend to Closing with `online` 0 and waits ten seconds for Closed, which a backend of
Linux becomes once the front end is; but the kernel that drove the front ends is dead. The rule: a
front end is closed only while its device is being taken away from a domain that is down for a soft
reset, by the backend that it had at the panic, and all of that is seen in the transaction that
closes it. The crash kernel uses the same nodes later, and a write that came late would end its
connection.
Source: Xen tools/libs/light/libxl_device.c (libxl__initiate_device_generic_remove); Linux
drivers/block/xen-blkback/xenbus.c, drivers/net/xen-netback/xenbus.c (frontend_changed).
"""

from __future__ import annotations

import re
from typing import Any, Callable, NamedTuple

from xenpv.abi import XenbusStateClosed, XenbusStateClosing

from ..xenstore.store import Store

LIBXL = "/libxl"
# Backends that wait for the front end, by libxl's name of the front ends' kind. QEMU, which is
# libxl's own, ends its devices by itself.
KINDS = {"vbd": "vbd", "vif": "vif"}
BACKEND = re.compile(r"/local/domain/(\d+)/backend/([a-z_]+)/(\d+)/(\d+)")


class FrontEnd(NamedTuple):
    """A front end, as libxl has it.

    Attributes:
        path: its nodes, the guest's.
        backend: its backend's nodes.
    """

    path: str
    backend: str


def find(store: Store, domid: int) -> list[FrontEnd]:
    """Return the front ends of a domain that are to be closed. Raises XenError."""
    found = []
    for kind, name in KINDS.items():
        area = f"{LIBXL}/{domid}/device/{kind}"
        for number in store.directory(area, []):
            backend = store.read_text(f"{area}/{number}/backend", "")
            match = BACKEND.fullmatch(backend)
            if match and match[2] == name and (match[3], match[4]) == (str(domid), number):
                found.append(FrontEnd(f"/local/domain/{domid}/device/{kind}/{number}", backend))
    return found


def close(store: Store, front: FrontEnd, is_down: Callable[[], bool]) -> bool:
    """Close a front end, if its device is being taken away from a domain that is down.

    Args:
        is_down: returns whether the domain is down for a soft reset. It is called in the store's
            thread, so it must not take long.

    Returns: whether it was closed.
    Raises: XenError.
    """

    async def work(transaction: Any) -> bool:
        async def value(path: str) -> str:
            found = await transaction.find(path)
            return "" if found is None else found.decode("ascii", "replace")

        if await value(f"{front.backend}/online") != "0":
            return False
        if await value(f"{front.backend}/state") != str(XenbusStateClosing):
            return False
        if await value(f"{front.path}/backend") != front.backend:
            return False
        if await value(f"{front.path}/state") in ("", str(XenbusStateClosed)):
            return False
        # After the nodes were read: they are those of the dead kernel, or the transaction fails.
        if not is_down():
            return False
        await transaction.write(f"{front.path}/state", str(XenbusStateClosed))
        return True

    return store.transact(work)
