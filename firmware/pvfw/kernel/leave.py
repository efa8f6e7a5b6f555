"""Handing the domain back before a kernel starts in it: nothing of ours is left in force.

Used by start.py. The order matters: devices, xenstore, Xen's frames in our memory, the watchdog,
the time area. Each frame of Xen's that was put in place of a page of RAM is taken out and RAM put
in again, else the kernel would find a hole there after a migration. Xenstore's and the console's
event channels stay: the toolstack made them, and nobody else can.
Rule: with a grant that a backend did not let go there is no jump: the kernel would use the same
entry.
"""

import struct

import hw
from xenpv import abi
from xenpv.errors import XenError


async def leave(guest):
    """Close xenstore and give Xen back what is its. The disks have been closed.

    guest: shell.guest.ShellGuest. Raises: XenError when something cannot be handed back.
    """
    if guest.grants.set_aside:
        raise XenError(
            "%d grants are still in use by a backend: no kernel can be started in this domain"
            % guest.grants.set_aside
        )
    await guest.leave()
    places = guest.grants.places()
    await guest.store.close()
    xen = guest.xen
    for address in places + [hw.shared_info()]:
        _put_ram(xen, address // abi.PAGE_SIZE)
    hw.watchdog(0)
    _stop_clock(xen)


def _put_ram(xen, gfn):
    """Take a frame of Xen's out of our memory, and put RAM in its place."""
    xen.call(
        "XENMEM_remove_from_physmap 0x%x" % gfn,
        abi.HYPERVISOR_memory_op,
        abi.XENMEM_remove_from_physmap,
        abi.XEN_REMOVE_FROM_PHYSMAP,
        *(abi.DOMID_SELF, 0, 0, gfn),
    )
    size = struct.calcsize(abi.XEN_MEMORY_RESERVATION)
    count = xen.call(
        "XENMEM_populate_physmap 0x%x" % gfn,
        abi.HYPERVISOR_memory_op,
        abi.XENMEM_populate_physmap,
        abi.XEN_MEMORY_RESERVATION + "Q",
        *(xen.page + size, 1, 0, 0, abi.DOMID_SELF, 0, 0, gfn),
    )
    if count != 1:
        raise XenError("XENMEM_populate_physmap 0x%x: Xen has no memory for this domain" % gfn)


def _stop_clock(xen):
    """Have Xen write our time no more."""
    hw.mem(xen.page, 8)[:] = bytes(8)
    rc = hw.hypercall(
        abi.HYPERVISOR_vcpu_op,
        abi.VCPUOP_register_vcpu_time_memory_area,
        *(hw.vcpu(), xen.page),
    )
    if rc < 0:
        raise XenError("VCPUOP_register_vcpu_time_memory_area: Xen answered errno %d" % -rc)
