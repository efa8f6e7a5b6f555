"""Giving a guest a disk of ours and taking it away, as a toolstack does: nodes, all at once.

Used by `pvdump blkback attach` and `detach`, since xl cannot name a backend of this type, and by
the host, which removes the nodes of a domain that is gone and makes those that a soft reset took
away. A guest that runs takes the disk up as if xl had attached it. The rule: a disk belongs to the
domain with the `vm` node that stands in the disk's nodes, not to whichever has its number now.
Source: Xen tools/libs/light/libxl_device.c (libxl__device_generic_add,
libxl__initiate_device_generic_remove), docs/man/xen-vbd-interface.7.pandoc.
"""

from __future__ import annotations

import os
import re
import threading
import time
from typing import Any

from xenpv.abi import XenbusStateClosed, XenbusStateClosing, XenbusStateInitialising

from ..xenstore.store import Store
from .backendstore import BackendStore, raw, text
from .paths import AREA, DOMAINS, HOME, backend_path, error_path, front_path

ATTACH_ID = "attach-id"  # tells nodes from those of an earlier attach with the same path
GIVEN = (
    *("frontend", "frontend-id", "online", "dev", "mode", "shared", "params", "vm"),
    ATTACH_ID,
)
XVD_MAJOR = 202
CLOSE_SECONDS = 10.0


class AttachError(Exception):
    """The disk cannot be given or taken away; the message says why."""


def number_of(name: str) -> int:
    """Return the number of a virtual disk: xvda is 51712, xvdq is 1 << 28 | 16 << 8."""
    match = re.fullmatch("xvd([a-z])", name)
    if match is None:
        raise AttachError(f"disk {name!r}: xvda to xvdz expected")
    index = ord(match[1]) - ord("a")
    return XVD_MAJOR << 8 | index << 4 if index < 16 else 1 << 28 | index << 8


def attach(
    store: Store, domid: int, name: str, params: str, readonly: bool, shared: bool = False
) -> None:
    """Give a domain a disk.

    Args:
        domid: of a domain that exists.
        name: of the virtual disk, such as xvdb.
        params, readonly, shared: as for sink.open_sink().

    Raises: AttachError, XenError.
    """
    number = number_of(name)
    front, back = front_path(domid, number), backend_path(domid, number)

    async def work(transaction: Any) -> None:
        home = f"{DOMAINS}/{domid}"
        if await transaction.find(f"{home}/domid") is None:
            raise AttachError(f"domain {domid} does not exist")
        if await transaction.find(f"{front}/backend") is not None:
            raise AttachError(f"domain {domid} has a disk {name}")
        values = {
            "frontend": front,
            "frontend-id": str(domid),
            "online": "1",
            "dev": name,
            "mode": "r" if readonly else "w",
            "shared": str(int(shared)),
            "params": params,
            "vm": await _text(transaction, f"{home}/vm"),
            ATTACH_ID: os.urandom(8).hex(),
        }
        await _make_front(transaction, domid, number)
        # An earlier domain's nodes may be there.
        if await transaction.find(back) is not None:
            await transaction.rm(back)
        await _make_back(transaction, domid, number, values)

    store.transact(work)


def given(store: BackendStore, domid: int, number: int) -> dict[str, str]:
    """Return what attach() wrote into the nodes of a disk."""
    back = backend_path(domid, number)
    return {key: store.read(f"{back}/{key}") or "" for key in GIVEN}


def restore(store: Store, domid: int, number: int, values: dict[str, str]) -> bool | None:
    """Make a disk's nodes again if a soft reset of its domain took them away.

    Args:
        values: from given().

    Returns: whether nodes were made; None if no such domain is introduced yet.
    Raises: XenError.
    """
    back, front = backend_path(domid, number), front_path(domid, number)
    # A domain that is being destroyed has its nodes for a while longer.
    if not store.call(lambda client: client.is_domain_introduced(domid)):
        return None

    async def work(transaction: Any) -> bool | None:
        vm = await _text(transaction, f"{DOMAINS}/{domid}/vm")
        if not vm:
            return None
        backend = await _text(transaction, f"{front}/backend")
        has_back = await transaction.find(f"{back}/frontend") is not None
        attached = await _text(transaction, f"{back}/{ATTACH_ID}")
        if vm != values["vm"] or backend not in ("", back) or (backend and has_back):
            return False
        if has_back and attached != values[ATTACH_ID]:
            return False
        # xenstored has taken the permissions of a domain that was away out of all nodes.
        if has_back:
            await transaction.rm(back)
        await _make_back(transaction, domid, number, values)
        if not backend:
            await _make_front(transaction, domid, number)
        return True

    return store.transact(work)


def remove_stale(store: Store, domid: int, number: int) -> dict[str, str] | None:
    """Remove the nodes of a disk whose domain is gone.

    Returns: what attach() wrote into them; None if the disk's domain is still there, or no nodes.
    Raises: XenError.
    """
    back = backend_path(domid, number)

    async def work(transaction: Any) -> dict[str, str] | None:
        values = {key: await _text(transaction, f"{back}/{key}") for key in GIVEN}
        vm = await transaction.find(f"{DOMAINS}/{domid}/vm")
        exists = vm is not None or await transaction.find(f"{DOMAINS}/{domid}") is not None
        now = None if vm is None else text(vm)
        if not values["frontend"] or not is_gone(values["vm"], now, exists):
            return None
        await transaction.rm(back)
        return values

    found = store.transact(work)
    if found is not None:
        remove_if_empty(store, f"{AREA}/{domid}")
        BackendStore(store).remove(error_path(domid, number))
    return found


def remove_if_empty(store: Store, path: str) -> None:
    """Remove a node without children. Raises XenError."""

    async def work(transaction: Any) -> None:
        if await transaction.find(path) is not None and not await transaction.directory(path):
            await transaction.rm(path)

    store.transact(work)


def is_gone(owner: str, vm: str | None, exists: bool) -> bool:
    """Return whether the domain that was given a disk is gone.

    Args:
        owner: the `vm` node when the disk was given, "" if there was none.
        vm: the `vm` node of the domain that has the number now; None during a soft reset.
        exists: whether a domain has the number now.
    """
    return not exists or (vm is not None and owner not in ("", vm))


async def _text(transaction: Any, path: str) -> str:
    return text(await transaction.find(path) or b"")


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
        await transaction.write(f"{path}/{key}", raw(value))


def detach(store: Store, domid: int, name: str, force: bool) -> None:
    """Take a disk away from a domain: both ends close it, then the nodes are removed.

    Args:
        force: do not wait for the guest.

    Raises: AttachError if the guest does not close the disk in time, XenError.
    """
    number = number_of(name)
    back, front = backend_path(domid, number), front_path(domid, number)
    nodes = BackendStore(store)
    if nodes.read(f"{back}/frontend") is None:
        raise AttachError(f"domain {domid} has no disk {name} of ours")
    if not force and not _closed(nodes, back):
        raise AttachError(
            f"domain {domid} did not close {name} in {CLOSE_SECONDS:g} s; --force takes it away"
        )
    nodes.remove(back)
    nodes.remove(front)
    nodes.remove(error_path(domid, number))


def _closed(nodes: BackendStore, back: str) -> bool:
    """Ask both ends to close. Returns whether the backend has."""
    changed = threading.Event()
    watch = nodes.store.watch(f"{back}/state", lambda path, token: changed.set())
    until = time.monotonic() + CLOSE_SECONDS
    try:
        nodes.update(back, {f"{back}/online": "0", f"{back}/state": str(XenbusStateClosing)})
        while nodes.read(f"{back}/state") != str(XenbusStateClosed):
            if not changed.wait(max(until - time.monotonic(), 0)):
                return False
            changed.clear()
    finally:
        watch.close()
    return True
