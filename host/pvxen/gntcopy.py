"""GNTTABOP_copy: bytes between two frames, each the caller's own or granted to it.

Called by the hypercall for a guest, and directly by backends, which are domain 0. Transitive grants
are refused, as by a Xen that was started with gnttab=no-transitive.
Source: Xen public/grant_table.h; xen/common/grant_table.c (gnttab_copy_one).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from xenpv import abi

from .evtchn import XenRefuses
from .gnttab import GrantRefused
from .public import (
    GNTST_bad_copy_arg,
    GNTST_bad_domain,
    GNTST_general_error,
    GNTST_permission_denied,
)

if TYPE_CHECKING:
    from .hypervisor import Hypervisor
    from .machine import Machine


@dataclass(frozen=True)
class Place:
    """A source or destination: `offset` bytes into a frame.

    frame: a grant reference where `granted`, else a gfn of the caller.
    """

    domid: int
    frame: int
    offset: int
    granted: bool


@dataclass(frozen=True)
class Claim:
    """A frame that may be used; start, length: the part of it."""

    view: memoryview
    start: int
    length: int

    def holds(self, offset: int, length: int) -> bool:
        """Return whether the claimed bytes include a range."""
        return self.start <= offset and offset + length <= self.start + self.length


def copy(hypervisor: Hypervisor, caller: int, source: Place, dest: Place, length: int) -> int:
    """Copy `length` bytes. Returns one of GNTST_*."""
    if length == 0:
        return abi.GNTST_okay
    try:
        machines = [_machine(hypervisor, caller, place) for place in (source, dest)]
        with (
            _claim(machines[0], caller, source, readonly=True) as out,
            _claim(machines[1], caller, dest, readonly=False) as into,
        ):
            return _move(source, out, dest, into, length)
    except GrantRefused as refused:
        return refused.status


def _machine(hypervisor: Hypervisor, caller: int, place: Place) -> Machine:
    if place.domid != abi.DOMID_SELF and not place.granted:
        raise GrantRefused("a frame of another domain", GNTST_permission_denied)
    domid = caller if place.domid == abi.DOMID_SELF else place.domid
    try:
        return hypervisor.machine(domid)
    except XenRefuses:
        raise GrantRefused(f"domain {domid} is not there", GNTST_bad_domain) from None


@contextlib.contextmanager
def _claim(machine: Machine, caller: int, place: Place, readonly: bool) -> Iterator[Claim]:
    if not place.granted:
        if not machine.is_lendable(place.frame):
            raise GrantRefused(f"frame 0x{place.frame:x} has no memory of this guest's")
        yield Claim(machine.page(place.frame), 0, abi.PAGE_SIZE)
        return
    active = machine.gnttab.acquire(place.frame, caller, readonly, whole=False)
    try:
        yield Claim(machine.page(active.frame), active.start, active.length)
    finally:
        machine.gnttab.release(place.frame, readonly)


def _move(source: Place, out: Claim, dest: Place, into: Claim, length: int) -> int:
    if max(source.offset, dest.offset) + length > abi.PAGE_SIZE:
        return GNTST_bad_copy_arg
    if not out.holds(source.offset, length) or not into.holds(dest.offset, length):
        return GNTST_general_error
    data = bytes(out.view[source.offset : source.offset + length])
    into.view[dest.offset : dest.offset + length] = data
    return abi.GNTST_okay
