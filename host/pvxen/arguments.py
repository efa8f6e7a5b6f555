"""Arguments of hypercalls: structures in guest memory, and the domains a guest may mean.

Used by hypercalls.py and gntop.py. What is no RAM is EFAULT; another domain is EPERM, one that is
not there ESRCH.
"""

from __future__ import annotations

import struct
from errno import EFAULT, EPERM, ESRCH
from typing import TYPE_CHECKING, Any

from xenpv import abi

from .evtchn import XenRefuses

if TYPE_CHECKING:
    from .machine import Machine


def read(machine: Machine, fmt: str, addr: int) -> tuple[Any, ...]:
    """Fields of a structure in guest memory. Refuses what is not RAM."""
    if not 0 <= addr <= len(machine.ram) - struct.calcsize(fmt):
        raise XenRefuses(EFAULT)
    return struct.unpack_from(fmt, machine.ram, addr)


def write(machine: Machine, fmt: str, addr: int, *fields: int) -> None:
    if not 0 <= addr <= len(machine.ram) - struct.calcsize(fmt):
        raise XenRefuses(EFAULT)
    struct.pack_into(fmt, machine.ram, addr, *fields)


def own(machine: Machine, domid: int, errno: int = EPERM) -> int:
    """The domain a guest means; it may mean none but itself."""
    if domid in (abi.DOMID_SELF, machine.domid):
        return machine.domid
    raise XenRefuses(errno if machine.hypervisor.exists(domid) else ESRCH)


def peer(machine: Machine, domid: int) -> int:
    return machine.domid if domid == abi.DOMID_SELF else domid
