"""The hypercalls of the embedded Xen: structures in guest memory to calls, and back.

Called by Machine.hypercall through TABLE. Arguments are as the guest passes them, pointers are
guest-physical. The rule: answers and their order are Xen's, so a driver that works here was refused
wherever Xen would have refused it; whatever is not here answers ENOSYS.
Source: Xen public/{memory,version,grant_table,sched,event_channel,hvm/hvm_op}.h.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from errno import EFAULT, EINVAL, ENOSPC, ENOSYS, EPERM, ESRCH
from typing import TYPE_CHECKING, Any

from xenpv import abi

from .clock import SECOND
from .evtchn import XenRefuses

if TYPE_CHECKING:
    from .machine import Machine, XenPage

GNTST_okay = 0
GNTST_general_error = -1
GNTST_bad_domain = -2
XENVER_get_features = 6
# auto_translated_physmap, hvm_callback_vector, hvm_safe_pvclock, hvm_pirqs
XENFEAT_HVM = 1 << 2 | 1 << 8 | 1 << 9 | 1 << 10
HVMOP_get_mem_type = 15
HVMMEM_ram_rw = 0
HVMMEM_mmio_dm = 2
HVM_NR_PARAMS = 39
POLL_MAX_PORTS = 128
MAX_WATCHDOGS = 2
INVALID_GFN = 0xFFFFFFFFFFFFFFFF
# The parameters a guest may set for itself; the others are its toolstack's.
GUEST_PARAMS = (abi.HVM_PARAM_CALLBACK_IRQ,)


def read(machine: Machine, fmt: str, addr: int) -> tuple[Any, ...]:
    """Fields of a structure in guest memory. Refuses what is not RAM."""
    if not 0 <= addr <= len(machine.ram) - struct.calcsize(fmt):
        raise XenRefuses(EFAULT)
    return struct.unpack_from(fmt, machine.ram, addr)


def write(machine: Machine, fmt: str, addr: int, *fields: int) -> None:
    if not 0 <= addr <= len(machine.ram) - struct.calcsize(fmt):
        raise XenRefuses(EFAULT)
    struct.pack_into(fmt, machine.ram, addr, *fields)


def own(machine: Machine, domid: int, errno: int = ESRCH) -> int:
    """The domain a guest means; it may mean none but itself."""
    if domid in (abi.DOMID_SELF, machine.domid):
        return machine.domid
    raise XenRefuses(errno)


def peer(machine: Machine, domid: int) -> int:
    return machine.domid if domid == abi.DOMID_SELF else domid


def memory_op(machine: Machine, cmd: int, arg: int, *_: int) -> int:
    if cmd != abi.XENMEM_add_to_physmap:
        return -ENOSYS
    domid, _size, space, idx, gfn = read(machine, "<HHIQQ", arg)
    own(machine, domid)
    page: XenPage
    if space == abi.XENMAPSPACE_shared_info and idx == 0:
        page = machine.shared_info_page
    elif space == abi.XENMAPSPACE_grant_table:
        machine.gnttab.grow(idx + 1)
        page = machine.gnttab.frames[idx]
    else:
        return -EINVAL
    if (gfn + 1) * abi.PAGE_SIZE > len(machine.ram):
        return -EINVAL
    machine.place(page, gfn)
    return 0


def xen_version(machine: Machine, cmd: int, arg: int = 0, *_: int) -> int:
    if cmd == abi.XENVER_version:
        return machine.version[0] << 16 | machine.version[1]
    if cmd == XENVER_get_features:
        (index,) = read(machine, "<I", arg)
        if index:
            return -EINVAL
        write(machine, "<I", arg + 4, XENFEAT_HVM)
        return 0
    return -ENOSYS


def grant_table_op(machine: Machine, cmd: int, arg: int, count: int = 1, *_: int) -> int:
    operations: dict[int, tuple[Callable[[Machine, int], None], int]] = {
        abi.GNTTABOP_query_size: (_query_size, abi.GNTTAB_QUERY_SIZE_SIZEOF),
        abi.GNTTABOP_get_version: (_get_version, 8),
        abi.GNTTABOP_set_version: (_set_version, 4),
        abi.GNTTABOP_setup_table: (_setup_table, 24),
    }
    if cmd not in operations:
        return -ENOSYS
    if count != 1:  # what Xen asks of these four
        return -EINVAL
    operation, size = operations[cmd]
    read(machine, f"{size}s", arg)
    operation(machine, arg)
    return 0


def _query_size(machine: Machine, arg: int) -> None:
    (domid,) = read(machine, "<H", arg)
    mine = domid in (abi.DOMID_SELF, machine.domid)
    table = machine.gnttab
    status = GNTST_okay if mine else GNTST_bad_domain
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
    if domid not in (abi.DOMID_SELF, machine.domid):
        write(machine, "<h", arg + 8, GNTST_bad_domain)
        return
    if frames > table.max_frames:
        write(machine, "<h", arg + 8, GNTST_general_error)
        return
    table.grow(frames)
    for i in range(frames):
        gfn = table.frames[i].gfn
        write(machine, "<Q", frame_list + 8 * i, INVALID_GFN if gfn is None else gfn)
    write(machine, "<h", arg + 8, GNTST_okay)


def sched_op(machine: Machine, cmd: int, arg: int = 0, *_: int) -> int:
    if cmd == abi.SCHEDOP_yield:
        machine.clock.run_one()
        return 0
    if cmd == abi.SCHEDOP_block:
        machine.wait(machine.evtchn.upcall_pending, 0, "(block)")
        return 0
    if cmd == abi.SCHEDOP_poll:
        return _poll(machine, arg)
    if cmd == abi.SCHEDOP_shutdown:
        machine.shutdown(read(machine, "<I", arg)[0])
    if cmd == abi.SCHEDOP_watchdog:
        number, seconds = read(machine, "<II", arg)
        return watchdog(machine, number, seconds)
    return -ENOSYS


def _poll(machine: Machine, arg: int) -> int:
    at, count, until = read(machine, "<QI4xQ", arg)
    if count > POLL_MAX_PORTS:
        return -EINVAL
    ports = read(machine, f"<{count}I", at) if count else ()
    if any(not 0 < port < abi.EVTCHN_2L_NR_CHANNELS for port in ports):
        return -EINVAL
    machine.poll(ports, until)
    return 0


def watchdog(machine: Machine, number: int, seconds: int) -> int:
    """SCHEDOP_watchdog: 0 takes a new one and returns its number; others are armed anew."""
    if number > MAX_WATCHDOGS or (number and number not in machine.watchdogs):
        raise XenRefuses(EINVAL)
    answer = 0
    if number == 0:
        unused = [n for n in range(1, MAX_WATCHDOGS + 1) if n not in machine.watchdogs]
        if not unused:
            raise XenRefuses(ENOSPC)
        answer = number = unused[0]
    else:
        machine.clock.cancel(machine.watchdogs.pop(number))
        if seconds == 0:
            return 0
    bite = machine.clock.after(seconds * SECOND, lambda: machine.shutdown(abi.SHUTDOWN_watchdog))
    machine.watchdogs[number] = bite
    return answer


def event_channel_op(machine: Machine, cmd: int, arg: int, *_: int) -> int:
    channels, me = machine.evtchn, machine.domid
    if cmd == abi.EVTCHNOP_alloc_unbound:
        domid, remote = read(machine, "<HH", arg)
        port = channels.alloc_unbound(own(machine, domid, EPERM), peer(machine, remote))
        write(machine, "<I", arg + abi.EVTCHN_ALLOC_UNBOUND_PORT, port)
    elif cmd == abi.EVTCHNOP_bind_interdomain:
        remote, remote_port = read(machine, "<H2xI", arg)
        port = channels.bind_interdomain(me, peer(machine, remote), remote_port)
        write(machine, "<I", arg + 8, port)
    elif cmd == abi.EVTCHNOP_send:
        channels.send(me, *read(machine, "<I", arg))
    elif cmd == abi.EVTCHNOP_close:
        channels.close(me, *read(machine, "<I", arg))
    elif cmd == abi.EVTCHNOP_unmask:
        channels.unmask(*read(machine, "<I", arg))
    elif cmd == abi.EVTCHNOP_status:
        domid, port = read(machine, "<H2xI", arg)
        state, remote, remote_port = channels.status(peer(machine, domid), port, me)
        write(machine, "<II", arg + 8, state, machine.vcpu())
        write(machine, "<H2xI", arg + 16, remote, remote_port)
    else:
        return -ENOSYS
    return 0


def hvm_op(machine: Machine, cmd: int, arg: int, *_: int) -> int:
    if cmd in (abi.HVMOP_get_param, abi.HVMOP_set_param):
        domid, index, value = read(machine, "<H2xIQ", arg)
        own(machine, domid)
        if index >= HVM_NR_PARAMS:
            return -EINVAL
        if cmd == abi.HVMOP_get_param:
            param = machine.params.get(index, 0)
            write(machine, "<Q", arg + abi.XEN_HVM_PARAM_VALUE, param)
        elif index in GUEST_PARAMS:
            machine.params[index] = value
        else:
            return -EPERM
        return 0
    if cmd == HVMOP_get_mem_type:
        domid, gfn = read(machine, "<H6xQ", arg)
        own(machine, domid)
        hole = gfn in machine.holes or (gfn + 1) * abi.PAGE_SIZE > len(machine.ram)
        write(machine, "<H", arg + 2, HVMMEM_mmio_dm if hole else HVMMEM_ram_rw)
        return 0
    return -ENOSYS


TABLE: dict[int, Callable[..., int]] = {
    abi.HYPERVISOR_memory_op: memory_op,
    abi.HYPERVISOR_xen_version: xen_version,
    abi.HYPERVISOR_grant_table_op: grant_table_op,
    abi.HYPERVISOR_sched_op: sched_op,
    abi.HYPERVISOR_event_channel_op: event_channel_op,
    abi.HYPERVISOR_hvm_op: hvm_op,
}
