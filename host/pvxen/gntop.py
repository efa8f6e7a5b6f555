"""HYPERVISOR_grant_table_op of the embedded Xen.

In the table of hypercalls.py. Source: Xen public/grant_table.h; xen/common/grant_table.c.
"""

from __future__ import annotations

from collections.abc import Callable
from errno import EINVAL, ENOSYS
from typing import TYPE_CHECKING

from xenpv import abi

from . import gntcopy, public
from .arguments import own, read, write

if TYPE_CHECKING:
    from .machine import Machine
    from .physmap import XenPage

COPY = "<QHH4xQHH4xHHh"  # struct gnttab_copy, 40 bytes apart
COPY_STRIDE = 40
INVALID_GFN = 0xFFFFFFFFFFFFFFFF


def grant_table_op(machine: Machine, cmd: int, arg: int, count: int = 1, *_: int) -> int:
    """Do a GNTTABOP_* command. Returns 0 or a negative errno."""
    if cmd == abi.GNTTABOP_copy:
        for i in range(count):
            _copy(machine, arg + i * COPY_STRIDE)
        return 0
    operations: dict[int, tuple[Callable[[Machine, int], None], int]] = {
        abi.GNTTABOP_query_size: (_query_size, abi.GNTTAB_QUERY_SIZE_SIZEOF),
        abi.GNTTABOP_get_version: (_get_version, 8),
        abi.GNTTABOP_set_version: (_set_version, 4),
        abi.GNTTABOP_setup_table: (_setup_table, 24),
        public.GNTTABOP_get_status_frames: (_get_status_frames, 16),
    }
    if cmd not in operations:
        return -ENOSYS
    if count != 1:  # what Xen asks of these
        return -EINVAL
    operation, size = operations[cmd]
    read(machine, f"{size}s", arg)
    operation(machine, arg)
    return 0


def _standing(machine: Machine, domid: int) -> int:
    """Return as one of GNTST_* whether a guest may ask about the table of `domid`."""
    if domid in (abi.DOMID_SELF, machine.domid):
        return abi.GNTST_okay
    there = machine.hypervisor.exists(domid)
    return public.GNTST_permission_denied if there else public.GNTST_bad_domain


def _query_size(machine: Machine, arg: int) -> None:
    (domid,) = read(machine, "<H", arg)
    table = machine.gnttab
    status = _standing(machine, domid)
    write(machine, "<IIh", arg + 4, len(table.frames), table.max_frames, status)


def _get_version(machine: Machine, arg: int) -> None:
    (domid,) = read(machine, "<H", arg)
    own(machine, domid)
    write(machine, "<I", arg + abi.GNTTAB_GET_VERSION_VERSION, machine.gnttab.version)


def _set_version(machine: Machine, arg: int) -> None:
    (version,) = read(machine, "<I", arg)
    try:
        machine.gnttab.set_version(version)
    finally:
        write(machine, "<I", arg, machine.gnttab.version)


def _setup_table(machine: Machine, arg: int) -> None:
    domid, frames, _status, frame_list = read(machine, "<H2xIh6xQ", arg)
    table = machine.gnttab
    status = _standing(machine, domid)
    if status == abi.GNTST_okay and frames > table.max_frames:
        status = public.GNTST_general_error
    if status == abi.GNTST_okay:
        table.grow(frames)
        _list_frames(machine, table.frames[:frames], frame_list)
    write(machine, "<h", arg + 8, status)


def _get_status_frames(machine: Machine, arg: int) -> None:
    frames, domid, _status, frame_list = read(machine, "<IHhQ", arg)
    table = machine.gnttab
    status = _standing(machine, domid)
    if status == abi.GNTST_okay and frames > len(table.status_frames):
        status = public.GNTST_general_error
    if status == abi.GNTST_okay:
        _list_frames(machine, table.status_frames[:frames], frame_list)
    write(machine, "<h", arg + 6, status)


def _list_frames(machine: Machine, pages: list[XenPage], frame_list: int) -> None:
    for i, page in enumerate(pages):
        write(machine, "<Q", frame_list + 8 * i, INVALID_GFN if page.gfn is None else page.gfn)


def _copy(machine: Machine, arg: int) -> None:
    """Do one struct gnttab_copy."""
    fields = read(machine, COPY, arg)
    flags = fields[7]
    source = gntcopy.Place(
        fields[1], fields[0], fields[2], bool(flags & public.GNTCOPY_source_gref)
    )
    dest = gntcopy.Place(fields[4], fields[3], fields[5], bool(flags & public.GNTCOPY_dest_gref))
    status = gntcopy.copy(machine.hypervisor, machine.domid, source, dest, fields[6])
    write(machine, "<h", arg + 36, status)
