"""The hypercalls of the embedded Xen: structures in guest memory to calls, and back.

Called by Machine.hypercall through TABLE. Arguments are as the guest passes them; arguments.py
reads what they point to. The rule: answers and their order are Xen's, so a driver is refused here
where Xen refuses it; a hypercall that is not here answers ENOSYS.
Source: Xen public/{memory,version,sched,event_channel,vcpu,hvm/hvm_op}.h; gntop.py has the grants'.
"""

from __future__ import annotations

from collections.abc import Callable
from errno import EINVAL, ENOENT, ENOSPC, ENOSYS, EOPNOTSUPP, EPERM
from typing import TYPE_CHECKING

from xenpv import abi

from . import public
from .arguments import locate, own, peer, read, write
from .clock import SECOND, TIME_INFO_SIZE
from .evtchn import XenRefuses
from .evtchn_fifo import Fifo
from .gntop import grant_table_op

if TYPE_CHECKING:
    from .machine import Machine
    from .physmap import XenPage

# auto_translated_physmap, hvm_callback_vector, hvm_safe_pvclock, hvm_pirqs
XENFEAT_HVM = 1 << 2 | 1 << 8 | 1 << 9 | 1 << 10
POLL_MAX_PORTS = 128
MAX_WATCHDOGS = 2
# The parameters a guest may set for itself; the others are its toolstack's.
GUEST_PARAMS = (abi.HVM_PARAM_CALLBACK_IRQ,)


def memory_op(machine: Machine, cmd: int, arg: int, *_: int) -> int:
    """Do an XENMEM_* command; there are those on single frames."""
    if cmd == abi.XENMEM_remove_from_physmap:
        domid, _, _, gfn = read(machine, abi.XEN_REMOVE_FROM_PHYSMAP, arg)
        own(machine, domid)
        return machine.remove(gfn)
    if cmd == abi.XENMEM_populate_physmap:
        at, count, order, _, domid, _, _ = read(machine, abi.XEN_MEMORY_RESERVATION, arg)
        own(machine, domid)
        gfns = read(machine, f"<{count}Q", at)
        return sum(machine.populate(gfn) for gfn in gfns) if order == 0 else 0
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
    """Do an XENVER_* command."""
    if cmd == abi.XENVER_version:
        return machine.version[0] << 16 | machine.version[1]
    if cmd == public.XENVER_get_features:
        (index,) = read(machine, "<I", arg)
        if index:
            return -EINVAL
        write(machine, "<I", arg + 4, XENFEAT_HVM)
        return 0
    return -ENOSYS


def sched_op(machine: Machine, cmd: int, arg: int = 0, *_: int) -> int:
    """Do a SCHEDOP_* command."""
    if cmd == abi.SCHEDOP_yield:
        machine.clock.run_one()
        return 0
    if cmd == abi.SCHEDOP_block:
        machine.wait(machine.upcall_pending, 0, "(block)")
        return 0
    if cmd == abi.SCHEDOP_poll:
        return _poll(machine, arg)
    if cmd == abi.SCHEDOP_shutdown:
        (reason,) = read(machine, "<I", arg)
        if reason == abi.SHUTDOWN_suspend:
            return suspend(machine)
        machine.shutdown(reason)
    if cmd == abi.SCHEDOP_watchdog:
        number, seconds = read(machine, "<II", arg)
        return watchdog(machine, number, seconds)
    return -ENOSYS


def suspend(machine: Machine) -> int:
    """Shut the domain down to be saved, and wait until it goes on, perhaps as another domain.

    Returns what the toolstack wrote into the vCPU's register: 1 if the suspension was called off
    and the guest has PV drivers. Source: tools/libs/guest/xg_resume.c (modify_returncode).
    """
    machine.shutdown(abi.SHUTDOWN_suspend)
    before = machine.domid
    machine.wait_resumed()
    return int(machine.domid == before and bool(machine.params.get(abi.HVM_PARAM_CALLBACK_IRQ)))


def _poll(machine: Machine, arg: int) -> int:
    at, count, until = read(machine, "<QI4xQ", arg)
    if count > POLL_MAX_PORTS:
        return -EINVAL
    ports = read(machine, f"<{count}I", at) if count else ()
    machine.poll(ports, until)
    return 0


def watchdog(machine: Machine, number: int, seconds: int) -> int:
    """Arm a watchdog as SCHEDOP_watchdog: number 0 takes a new one and returns its number."""
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
    """Do an EVTCHNOP_* command."""
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
    """Do a VCPUOP_* command."""
    if cmd not in (
        public.VCPUOP_register_vcpu_info,
        abi.VCPUOP_register_vcpu_time_memory_area,
    ):
        return -ENOSYS
    if vcpu >= machine.vcpus:
        return -ENOENT
    if cmd == public.VCPUOP_register_vcpu_info:
        machine.register_vcpu_info(vcpu, *read(machine, "<QI", arg))
    else:
        # The area is where a write to this linear address goes today; Xen finds it anew each time.
        (area,) = read(machine, "<Q", arg)
        machine.register_time_area(locate(machine, area, TIME_INFO_SIZE) if area else 0)
    return 0


def hvm_op(machine: Machine, cmd: int, arg: int, *_: int) -> int:
    """Do an HVMOP_* command."""
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
    abi.HYPERVISOR_vcpu_op: vcpu_op,
}
