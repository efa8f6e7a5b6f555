"""Arguments of hypercalls: structures in guest memory, and the domains a guest may mean.

Used by hypercalls.py and gntop.py. Addresses are linear, as in Xen: where a CPU executes the guest
they go through its page tables, under CPython they are physical. What is not RAM is EFAULT; another
domain is EPERM, one that does not exist ESRCH.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterator
from errno import EFAULT, EPERM, ESRCH
from typing import TYPE_CHECKING, Any

from xenpv import abi
from xenpv.abi import PAGE_SIZE

from .evtchn import XenRefuses

if TYPE_CHECKING:
    from .machine import Machine


def read(machine: Machine, fmt: str, addr: int) -> tuple[Any, ...]:
    """Unpack a structure from guest memory. Raises XenRefuses (EFAULT) where that is not RAM."""
    size = struct.calcsize(fmt)
    if machine.translate is None:
        return struct.unpack_from(fmt, machine.ram, _ram(machine, addr, size))
    return struct.unpack(fmt, b"".join(machine.ram[a:b] for a, b in _pieces(machine, addr, size)))


def write(machine: Machine, fmt: str, addr: int, *fields: int) -> None:
    """Pack a structure into guest memory. Raises XenRefuses (EFAULT) where that is not RAM."""
    size = struct.calcsize(fmt)
    if machine.translate is None:
        struct.pack_into(fmt, machine.ram, _ram(machine, addr, size), *fields)
        return
    raw = struct.pack(fmt, *fields)
    for start, end in _pieces(machine, addr, size):
        machine.ram[start:end], raw = raw[: end - start], raw[end - start :]


def locate(machine: Machine, addr: int, size: int) -> int:
    """Return the physical address of guest memory in one piece. Raises XenRefuses (EFAULT)."""
    if machine.translate is None:
        return _ram(machine, addr, size)
    pieces = list(_pieces(machine, addr, size))
    if any(end != start for (_, end), (start, _) in itertools.pairwise(pieces)):
        raise XenRefuses(EFAULT)
    return pieces[0][0]


def _ram(machine: Machine, addr: int, size: int) -> int:
    if not 0 <= addr <= len(machine.ram) - size:
        raise XenRefuses(EFAULT)
    return addr


def _pieces(machine: Machine, addr: int, size: int) -> Iterator[tuple[int, int]]:
    """Yield (start, end) in RAM of each part of a structure at a linear address, page by page."""
    assert machine.translate is not None
    end = addr + size
    while addr < end:
        part = min(end - addr, PAGE_SIZE - addr % PAGE_SIZE)
        at = machine.translate(addr)
        if at is None:
            raise XenRefuses(EFAULT)
        start = _ram(machine, at, part)
        yield start, start + part
        addr += part


def own(machine: Machine, domid: int, errno: int = EPERM) -> int:
    """Return the domain that a guest means, which may be none but itself."""
    if domid in (abi.DOMID_SELF, machine.domid):
        return machine.domid
    raise XenRefuses(errno if machine.hypervisor.exists(domid) else ESRCH)


def peer(machine: Machine, domid: int) -> int:
    """Return the domain that a domid of a hypercall names."""
    return machine.domid if domid == abi.DOMID_SELF else domid
