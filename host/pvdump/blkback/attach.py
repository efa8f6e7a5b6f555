"""Giving a guest a disk of ours and taking it away, as a toolstack does: nodes, all at once.

Used by `pvdump blkback attach` and `detach`; xl has no name for a backend of this type. A guest
that runs takes the disk up as if xl had attached it. At a soft reset xl removes all nodes of the
guest and makes those of its own devices again; for ours the backend does that.
Source: Xen tools/libs/light/libxl_device.c (libxl__device_generic_add,
libxl__initiate_device_generic_remove), docs/man/xen-vbd-interface.7.pandoc.
"""

from __future__ import annotations

import re
import threading
import time
from typing import Any

from xenpv.abi import XenbusStateClosed, XenbusStateClosing, XenbusStateInitialising

from ..xenstore.store import Store
from .device import HOME, backend_path
from .nodes import Nodes

GIVEN = ("frontend", "frontend-id", "online", "dev", "mode", "params", "vm")
XVD_MAJOR = 202
CLOSE_SECONDS = 10.0


class AttachError(Exception):
    """The disk cannot be given or taken away, and why."""


def number_of(name: str) -> int:
    """The number of a virtual disk: xvda is 51712, xvdq is 1 << 28 | 16 << 8."""
    match = re.fullmatch("xvd([a-z])", name)
    if match is None:
        raise AttachError(f"disk {name!r}: xvda to xvdz expected")
    index = ord(match[1]) - ord("a")
    return XVD_MAJOR << 8 | index << 4 if index < 16 else 1 << 28 | index << 8


def front_path(domid: int, number: int) -> str:
    return f"/local/domain/{domid}/device/vbd/{number}"


def attach(store: Store, domid: int, name: str, params: str, readonly: bool) -> None:
    """Raises AttachError, XenError. params: see sink.open_sink()."""
    number = number_of(name)
    front = front_path(domid, number)
    nodes = Nodes(store)
    if nodes.read(f"/local/domain/{domid}/domid") is None:
        raise AttachError(f"domain {domid} is not there")
    if nodes.read(f"{front}/backend") is not None:
        raise AttachError(f"domain {domid} has a disk {name}")
    values = {
        "frontend": front,
        "frontend-id": str(domid),
        "online": "1",
        "dev": name,
        "mode": "r" if readonly else "w",
        "params": params,
        "vm": nodes.read(f"/local/domain/{domid}/vm") or "",
    }

    async def work(transaction: Any) -> None:
        await _make_front(transaction, domid, number)
        await _make_back(transaction, domid, number, values)

    store.transact(work)


def given(nodes: Nodes, domid: int, number: int) -> dict[str, str]:
    """What attach() wrote into the nodes of a disk that is there."""
    back = backend_path(domid, number)
    return {key: nodes.read(f"{back}/{key}") or "" for key in GIVEN}


def restore(store: Store, domid: int, number: int, values: dict[str, str]) -> bool | None:
    """Make a disk's nodes again if a soft reset of its domain took them away.

    values: as from given(). It is the domain that was given the disk if its `vm` is the same, not
    one that has its number now. Returns whether nodes were made, None when there is no such domain.
    Raises XenError.
    """
    back, front = backend_path(domid, number), front_path(domid, number)
    # The nodes of one that is destroyed are there for a while longer.
    if not store.call(lambda client: client.is_domain_introduced(domid)):
        return None

    async def work(transaction: Any) -> bool | None:
        vm = await transaction.read_text(f"/local/domain/{domid}/vm", "")
        if not vm:
            return None
        backend = await transaction.read_text(f"{front}/backend", "")
        has_back = await transaction.read_text(f"{back}/frontend", "")
        if vm != values["vm"] or backend not in ("", back) or (backend and has_back):
            return False
        # xenstored has taken the permissions of a domain that was away out of all nodes.
        if has_back:
            await transaction.rm(back)
        await _make_back(transaction, domid, number, values)
        if not backend:
            await _make_front(transaction, domid, number)
        return True

    return store.transact(work)


async def _make_back(transaction: Any, domid: int, number: int, values: dict[str, str]) -> None:
    values = {**values, "state": str(XenbusStateInitialising)}
    await _make(transaction, backend_path(domid, number), [("n", 0), ("r", domid)], values)


async def _make_front(transaction: Any, domid: int, number: int) -> None:
    values = {
        "backend": backend_path(domid, number),
        "backend-id": HOME.rpartition("/")[2],
        "state": str(XenbusStateInitialising),
        "virtual-device": str(number),
        "device-type": "disk",
    }
    await _make(transaction, front_path(domid, number), [("n", domid), ("r", 0)], values)


async def _make(transaction: Any, path: str, perms: Any, values: dict[str, str]) -> None:
    await transaction.mkdir(path)
    await transaction.set_perms(path, perms)
    for key, value in values.items():
        await transaction.write(f"{path}/{key}", value)


def detach(store: Store, domid: int, name: str, force: bool) -> None:
    """Ask both ends to close and remove the nodes; with force, remove them at once.

    Raises AttachError when the guest does not let go, XenError.
    """
    number = number_of(name)
    back, front = backend_path(domid, number), front_path(domid, number)
    nodes = Nodes(store)
    if nodes.read(f"{back}/frontend") is None:
        raise AttachError(f"domain {domid} has no disk {name} of ours")
    if not force and not _closed(nodes, back):
        raise AttachError(
            f"domain {domid} did not let go of {name} in {CLOSE_SECONDS:g} s; --force takes it"
        )
    nodes.remove(back)
    nodes.remove(front)


def _closed(nodes: Nodes, back: str) -> bool:
    changed = threading.Event()
    watch = nodes.store.watch(f"{back}/state", lambda path, token: changed.set())
    until = time.monotonic() + CLOSE_SECONDS
    try:
        nodes.update(back, {"online": "0", "state": str(XenbusStateClosing)})
        while nodes.read(f"{back}/state") != str(XenbusStateClosed):
            if not changed.wait(max(until - time.monotonic(), 0)):
                return False
            changed.clear()
    finally:
        watch.close()
    return True
