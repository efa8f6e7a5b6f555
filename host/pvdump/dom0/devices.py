"""The disks of a guest that libxl soft resets, closed so that libxl does not wait for them.

Used by daemon.py for HVM guests. libxl takes the devices of a guest away before it resets it: it
sets each backend to Closing with `online` 0, removes the front end, and waits ten seconds for the
backend to be Closed. Linux' blkback lets a device go whose front end is gone, and does not say so;
netback does. The rule: nodes are written only while the device is being taken away from a domain
that is down for a soft reset, by the backend that it had at the panic, and all of that is seen in
the transaction that writes. The crash kernel uses the same nodes later, and a write that came late
would end its connection.
The kernel handles the events of xenstore in order, so it has let the device go before it sees the
one that libxl makes next.
Source: Xen tools/libs/light/libxl_device.c (libxl__initiate_device_generic_remove); Linux
drivers/block/xen-blkback/xenbus.c, drivers/net/xen-netback/xenbus.c (frontend_changed),
drivers/xen/xenbus/xenbus_xs.c (xenwatch_thread).
"""

from __future__ import annotations

import re
from typing import Any, Callable, NamedTuple

from xenpv.abi import XenbusStateClosed, XenbusStateClosing

from ..xenstore.store import Store

LIBXL = "/libxl"
KIND = "vbd"  # of front end and backend; libxl waits for no other one
BACKEND = re.compile(r"/local/domain/(\d+)/backend/([a-z_]+)/(\d+)/(\d+)")


class Disk(NamedTuple):
    """A disk, as libxl has it.

    Attributes:
        front: the path of the guest's nodes.
        back: that of the backend's.
    """

    front: str
    back: str


def find(store: Store, domid: int) -> list[Disk]:
    """Return the disks of a domain that Linux' blkback serves. Raises XenError."""
    area = f"{LIBXL}/{domid}/device/{KIND}"
    found = []
    for number in store.directory(area, []):
        back = store.read_text(f"{area}/{number}/backend", "")
        match = BACKEND.fullmatch(back)
        if match and match[2] == KIND and (match[3], match[4]) == (str(domid), number):
            found.append(Disk(f"/local/domain/{domid}/device/{KIND}/{number}", back))
    return found


def close(store: Store, disk: Disk, is_down: Callable[[], bool]) -> bool:
    """Close a disk, if it is being taken away from a domain that is down.

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

        if await value(f"{disk.back}/online") != "0":
            return False
        if await value(f"{disk.back}/state") != str(XenbusStateClosing):
            return False
        front = await value(f"{disk.front}/backend")
        if front not in ("", disk.back):
            return False
        # After the nodes were read: they are those of the dead kernel, or the transaction fails.
        if not is_down():
            return False
        # A front end that is still there is closed, and blkback then closes its end.
        path = disk.front if front else disk.back
        await transaction.write(f"{path}/state", str(XenbusStateClosed))
        return True

    return store.transact(work)
