"""The hypercalls of the embedded Xen: structures in guest memory to calls, and back.

Called by Machine.hypercall through TABLE. Arguments are as the guest passes them, pointers are
guest-physical. The rule: answers and their order are Xen's, so a driver that works here was refused
wherever Xen would have refused it; whatever is not here answers ENOSYS.
Source: Xen public/{memory,version,grant_table,sched,event_channel,vcpu,hvm/hvm_op}.h.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from errno import EFAULT, EINVAL, ENOENT, ENOSPC, ENOSYS, EOPNOTSUPP, EPERM, ESRCH
from typing import TYPE_CHECKING, Any

from xenpv import abi

from . import gntcopy, public
from .clock import SECOND
from .evtchn import XenRefuses
from .evtchn_fifo import Fifo

if TYPE_CHECKING:
    from .machine import Machine
    from .physmap import XenPage

# auto_translated_physmap, hvm_callback_vector, hvm_safe_pvclock, hvm_pirqs
XENFEAT_HVM = 1 << 2 | 1 << 8 | 1 << 9 | 1 << 10
POLL_MAX_PORTS = 128
MAX_WATCHDOGS = 2
COPY = "<QHH4xQHH4xHHh"  # struct gnttab_copy, 40 bytes apart
COPY_STRIDE = 40
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


def own(machine: Machine, domid: int, errno: int = EPERM) -> int:
    """The domain a guest means; it may mean none but itself."""
    if domid in (abi.DOMID_SELF, machine.domid):
        return machine.domid
    raise XenRefuses(errno if machine.hypervisor.exists(domid) else ESRCH)


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
        page = machine.gnttab.frame(idx)
    else:
        return -EINVAL
    if (gfn + 1) * abi.PAGE_SIZE > len(machine.ram):
        return -EINVAL
    machine.place(page, gfn)
    return 0


def xen_version(machine: Machine, cmd: int, arg: int = 0, *_: int) -> int:
    if cmd == abi.XENVER_version:
        return machine.version[0] << 16 | machine.version[1]
    if cmd == public.XENVER_get_features:
        (index,) = read(machine, "<I", arg)
        if index:
            return -EINVAL
        write(machine, "<I", arg + 4, XENFEAT_HVM)
        return 0
    return -ENOSYS


def grant_table_op(machine: Machine, cmd: int, arg: int, count: int = 1, *_: int) -> int:
    if cmd == public.GNTTABOP_copy:
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
    """Whether a guest may ask about the table of `domid`, as one of GNTST_*."""
    if domid in (abi.DOMID_SELF, machine.domid):
        return public.GNTST_okay
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
    if status == public.GNTST_okay and frames > table.max_frames:
        status = public.GNTST_general_error
    if status == public.GNTST_okay:
        table.grow(frames)
        _list_frames(machine, table.frames[:frames], frame_list)
    write(machine, "<h", arg + 8, status)


def _get_status_frames(machine: Machine, arg: int) -> None:
    frames, domid, _status, frame_list = read(machine, "<IHhQ", arg)
    table = machine.gnttab
    status = _standing(machine, domid)
    if status == public.GNTST_okay and frames > len(table.status_frames):
        status = public.GNTST_general_error
    if status == public.GNTST_okay:
        _list_frames(machine, table.status_frames[:frames], frame_list)
    write(machine, "<h", arg + 6, status)


def _list_frames(machine: Machine, pages: list[XenPage], frame_list: int) -> None:
    for i, page in enumerate(pages):
        write(machine, "<Q", frame_list + 8 * i, INVALID_GFN if page.gfn is None else page.gfn)


def _copy(machine: Machine, arg: int) -> None:
    """One struct gnttab_copy."""
    fields = read(machine, COPY, arg)
    flags = fields[7]
    source = gntcopy.Place(
        fields[1], fields[0], fields[2], bool(flags & public.GNTCOPY_source_gref)
    )
    dest = gntcopy.Place(fields[4], fields[3], fields[5], bool(flags & public.GNTCOPY_dest_gref))
    status = gntcopy.copy(machine.hypervisor, machine.domid, source, dest, fields[6])
    write(machine, "<h", arg + 36, status)


def sched_op(machine: Machine, cmd: int, arg: int = 0, *_: int) -> int:
    if cmd == abi.SCHEDOP_yield:
        machine.clock.run_one()
        return 0
    if cmd == abi.SCHEDOP_block:
        machine.wait(machine.upcall_pending, 0, "(block)")
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
    bite = machine.clock.after(seconds * SECOND, machine.watchdog_bites)
    machine.watchdogs[number] = bite
    return answer


def event_channel_op(machine: Machine, cmd: int, arg: int, *_: int) -> int:
    channels, me = machine.evtchn, machine.domid
    if cmd == abi.EVTCHNOP_alloc_unbound:
        domid, remote = read(machine, "<HH", arg)
        port = channels.alloc_unbound(own(machine, domid), peer(machine, remote))
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
        machine.events.unmask(channels.port(me, *read(machine, "<I", arg)))
    elif cmd == abi.EVTCHNOP_status:
        domid, port = read(machine, "<H2xI", arg)
        state, remote, remote_port = channels.status(own(machine, domid), port)
        write(machine, "<II", arg + 8, state, 0)
        write(machine, "<H2xI", arg + 16, remote, remote_port)
    elif cmd == public.EVTCHNOP_reset:
        (domid,) = read(machine, "<H", arg)
        own(machine, domid)
        machine.reset_events()
    else:
        return _fifo_op(machine, cmd, arg)
    return 0


def _fifo_op(machine: Machine, cmd: int, arg: int) -> int:
    if cmd == public.EVTCHNOP_init_control:
        gfn, offset, vcpu = read(machine, "<QII", arg)
        machine.init_control(gfn, offset, vcpu)
        write(machine, "<B", arg + 16, public.EVTCHN_FIFO_LINK_BITS)
    elif cmd == public.EVTCHNOP_expand_array:
        if not isinstance(machine.events, Fifo):
            return -EOPNOTSUPP
        machine.events.expand_array(*read(machine, "<Q", arg))
    elif cmd == public.EVTCHNOP_set_priority:
        number, priority = read(machine, "<II", arg)
        machine.events.set_priority(machine.evtchn.port(machine.domid, number), priority)
    else:
        return -ENOSYS
    return 0


def vcpu_op(machine: Machine, cmd: int, vcpu: int, arg: int = 0, *_: int) -> int:
    if cmd != public.VCPUOP_register_vcpu_info:
        return -ENOSYS
    if vcpu >= machine.vcpus:
        return -ENOENT
    machine.register_vcpu_info(vcpu, *read(machine, "<QI", arg))
    return 0


def hvm_op(machine: Machine, cmd: int, arg: int, *_: int) -> int:
    if cmd in (abi.HVMOP_get_param, abi.HVMOP_set_param):
        domid, index, value = read(machine, "<H2xIQ", arg)
        own(machine, domid)
        if index >= public.HVM_NR_PARAMS:
            return -EINVAL
        if cmd == abi.HVMOP_get_param:
            param = machine.params.get(index, 0)
            write(machine, "<Q", arg + abi.XEN_HVM_PARAM_VALUE, param)
        elif index in GUEST_PARAMS:
            machine.params[index] = value
        else:
            return -EPERM
        return 0
    if cmd == public.HVMOP_get_mem_type:
        domid, gfn = read(machine, "<H6xQ", arg)
        own(machine, domid)
        kind = public.HVMMEM_ram_rw if machine.is_ram(gfn) else public.HVMMEM_mmio_dm
        write(machine, "<H", arg + 2, kind)
        return 0
    return -ENOSYS


TABLE: dict[int, Callable[..., int]] = {
    abi.HYPERVISOR_memory_op: memory_op,
    abi.HYPERVISOR_xen_version: xen_version,
    abi.HYPERVISOR_grant_table_op: grant_table_op,
    abi.HYPERVISOR_sched_op: sched_op,
    abi.HYPERVISOR_event_channel_op: event_channel_op,
    abi.HYPERVISOR_hvm_op: hvm_op,
    public.HYPERVISOR_vcpu_op: vcpu_op,
}
