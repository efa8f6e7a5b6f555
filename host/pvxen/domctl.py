"""What Xen does to a domain when the toolstack asks: XEN_DOMCTL_resumedomain, soft_reset, destroy.

Called by toolstack.py. Source: xen/common/domain.c (domain_resume, domain_soft_reset,
domain_kill); xen/arch/x86/domain.c (arch_domain_soft_reset).
"""

from __future__ import annotations

from errno import EINVAL
from typing import TYPE_CHECKING

from .evtchn import XenRefuses

if TYPE_CHECKING:
    from .machine import Machine


def resume(machine: Machine) -> None:
    """A domain that shut down may run again, with nothing reset."""
    machine.shutdown_reason = None


def soft_reset(machine: Machine) -> None:
    """Every event channel closed, 2-level, what is registered in guest memory forgotten.

    Grants and watchdogs stay what they are: Xen keeps both, and says which grants are in use.
    Raises XenRefuses for a domain that has not shut down.
    """
    if machine.shutdown_reason is None:
        raise XenRefuses(EINVAL)
    machine.reset_events()
    for ref, active in sorted(machine.gnttab.active.items()):
        line = f"d{machine.domid} has active grant {ref:x} (GFN {active.frame:x})"
        machine.hypervisor.log.append(line)
    machine.forget_vcpu_infos()
    machine.take_back(machine.shared_info_page, fresh=True)
    resume(machine)


def destroy(machine: Machine) -> None:
    """The domain is gone: no port is left, no watchdog bites any more."""
    machine.evtchn.close_all(machine.domid)
    for timer in machine.watchdogs.values():
        machine.clock.cancel(timer)
    machine.watchdogs.clear()
    del machine.hypervisor.machines[machine.domid]
