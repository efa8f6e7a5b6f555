"""The 2-level interface of event channels: bits of shared_info and of vcpu_info.

A domain begins with it, and returns to it by EVTCHNOP_reset. All channels notify vCPU 0.
Source: Xen public/event_channel.h; xen/common/event_2l.c.
"""

from __future__ import annotations

from errno import ENOSYS
from typing import TYPE_CHECKING

from xenpv import abi

from .evtchn import Port, XenRefuses

if TYPE_CHECKING:
    from .machine import Machine

VCPU_INFO_PENDING = 0
VCPU_INFO_PENDING_SEL = 8


class TwoLevel:
    """The 2-level event channels of one machine."""

    name = "2l"
    limit = abi.EVTCHN_2L_NR_CHANNELS

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    def _bit(self, field: int, number: int) -> tuple[memoryview, int, int]:
        return self._machine.shared_info_page.view, field + number // 8, 1 << number % 8

    def is_pending(self, number: int) -> bool:
        """Return whether an event is pending."""
        view, byte, bit = self._bit(abi.SHARED_INFO_EVTCHN_PENDING, number)
        return bool(view[byte] & bit)

    def is_masked(self, number: int) -> bool:
        """Return whether the port is masked."""
        view, byte, bit = self._bit(abi.SHARED_INFO_EVTCHN_MASK, number)
        return bool(view[byte] & bit)

    def is_busy(self, number: int) -> bool:
        """Return False: no port is queued here."""
        return False

    def set_pending(self, port: Port) -> None:
        """Make an event pending and tell the vCPU unless it is masked."""
        if self.is_pending(port.number):
            return
        view, byte, bit = self._bit(abi.SHARED_INFO_EVTCHN_PENDING, port.number)
        view[byte] |= bit
        if not self.is_masked(port.number):
            self._upcall(port.number)
        self._machine.check_pollers(port.number)

    def _upcall(self, number: int) -> None:
        info = self._machine.vcpu_info(0)
        byte, bit = VCPU_INFO_PENDING_SEL + number // 512, 1 << number // 64 % 8
        if not info[byte] & bit:
            info[byte] |= bit
            info[VCPU_INFO_PENDING] = 1

    def clear_pending(self, number: int) -> None:
        """Take back a pending event."""
        view, byte, bit = self._bit(abi.SHARED_INFO_EVTCHN_PENDING, number)
        view[byte] &= 0xFF ^ bit

    def unmask(self, port: Port) -> None:
        """Let a port raise upcalls, one at once when it is pending."""
        view, byte, bit = self._bit(abi.SHARED_INFO_EVTCHN_MASK, port.number)
        was = view[byte] & bit
        view[byte] &= 0xFF ^ bit
        if was and self.is_pending(port.number):
            self._upcall(port.number)

    def set_priority(self, port: Port, priority: int) -> None:
        """Raise XenRefuses ENOSYS: there are no priorities here."""
        raise XenRefuses(ENOSYS)
