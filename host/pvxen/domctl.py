"""Xen's operations on domains for the toolstack: XEN_DOMCTL_resumedomain, soft_reset, destroy.

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
    """Let a domain that shut down run again, with nothing reset."""
    machine.shutdown_reason = None


def soft_reset(machine: Machine) -> None:
    """Close all event channels, return to 2-level, forget what is registered in guest memory.

    Xen keeps grants and watchdogs, and logs which grants are in use.
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
    """Remove a domain with its ports and watchdogs."""
    machine.evtchn.close_all(machine.domid)
    for timer in machine.watchdogs.values():
        machine.clock.cancel(timer)
    machine.watchdogs.clear()
    del machine.hypervisor.machines[machine.domid]
