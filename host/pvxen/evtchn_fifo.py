"""The FIFO interface of event channels: event words and queues in pages of the guest.

In force from EVTCHNOP_init_control to EVTCHNOP_reset. The pages belong to the guest. After its
crash the next kernel uses that memory, and Xen still writes to it: a word that is pending stays
pending, and its events wake no poll any more. An event whose word lies beyond the array is kept
until the array grows, and no poll sees it.
All channels notify vCPU 0. Source: Xen public/event_channel.h; xen/common/event_fifo.c.
"""

from __future__ import annotations

import struct
from errno import EINVAL, ENOENT, ENOSPC
from typing import TYPE_CHECKING

from xenpv import abi

from .evtchn import Port, XenRefuses
from .evtchn_2l import VCPU_INFO_PENDING
from .public import (
    EVTCHN_FIFO_BUSY,
    EVTCHN_FIFO_LINK_BITS,
    EVTCHN_FIFO_LINKED,
    EVTCHN_FIFO_MASKED,
    EVTCHN_FIFO_MAX_QUEUES,
    EVTCHN_FIFO_NR_CHANNELS,
    EVTCHN_FIFO_PENDING,
    EVTCHN_FIFO_PRIORITY_MIN,
)

if TYPE_CHECKING:
    from .machine import Machine

WORDS = abi.PAGE_SIZE // 4
LINK_MASK = (1 << EVTCHN_FIFO_LINK_BITS) - 1
# struct evtchn_fifo_control_block
READY = 0
HEAD = 8
CONTROL_BLOCK_SIZE = HEAD + 4 * EVTCHN_FIFO_MAX_QUEUES


class Fifo:
    """The FIFO event channels of one machine."""

    name = "fifo"
    limit = EVTCHN_FIFO_NR_CHANNELS

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._blocks: dict[int, memoryview] = {}  # of each vCPU
        self._array: list[memoryview] = []
        self._tails = [0] * EVTCHN_FIFO_MAX_QUEUES  # of vCPU 0
        self._queue_of: dict[int, int] = {}  # of each port: the queue it was last linked on
        self._kept: set[int] = set()  # pending ports whose word is not there yet

    # Set-up by the guest.

    def init_control(self, gfn: int, offset: int, vcpu: int) -> None:
        """Give a vCPU its control block."""
        if vcpu >= self._machine.vcpus:
            raise XenRefuses(ENOENT)
        if offset > abi.PAGE_SIZE - CONTROL_BLOCK_SIZE or offset % 8 or vcpu in self._blocks:
            raise XenRefuses(EINVAL)
        self._blocks[vcpu] = self._page(gfn)[offset : offset + CONTROL_BLOCK_SIZE]

    def keep(self, number: int) -> None:
        """Keep the event of a port that was pending when the interface changed."""
        self._kept.add(number)

    def expand_array(self, gfn: int) -> None:
        """Give the event array one more page; what is kept for it is raised."""
        if len(self._array) * WORDS >= EVTCHN_FIFO_NR_CHANNELS:
            raise XenRefuses(ENOSPC)
        self._array.append(self._page(gfn))
        first = (len(self._array) - 1) * WORDS
        for port in self._machine.evtchn.of(self._machine.domid):
            if first <= port.number < first + WORDS and port.number in self._kept:
                self.set_pending(port)

    def _page(self, gfn: int) -> memoryview:
        if not self._machine.is_ram(gfn):
            raise XenRefuses(EINVAL)
        return self._machine.page(gfn)

    # Words.

    def word(self, number: int) -> int | None:
        """Return a port's event word, None where the array has none."""
        if number >= len(self._array) * WORDS:
            return None
        page = self._array[number // WORDS]
        return int.from_bytes(page[number % WORDS * 4 : number % WORDS * 4 + 4], "little")

    def _store(self, number: int, word: int) -> None:
        struct.pack_into("<I", self._array[number // WORDS], number % WORDS * 4, word)

    def _test(self, number: int, bit: int) -> bool:
        word = self.word(number)
        return word is not None and bool(word >> bit & 1)

    def _set(self, number: int, bit: int) -> bool:
        """Set a bit of a word that is there. Returns whether it was set already."""
        word = self.word(number)
        assert word is not None
        self._store(number, word | 1 << bit)
        return bool(word >> bit & 1)

    def _clear(self, number: int, bit: int) -> None:
        word = self.word(number)
        if word is not None:
            self._store(number, word & ~(1 << bit))

    # Events.

    def is_pending(self, number: int) -> bool:
        """Return whether an event is pending."""
        return self._test(number, EVTCHN_FIFO_PENDING)

    def is_masked(self, number: int) -> bool:
        """Return whether the port is masked or has no event word yet."""
        return self.word(number) is None or self._test(number, EVTCHN_FIFO_MASKED)

    def is_busy(self, number: int) -> bool:
        """Return whether the port is linked into a queue."""
        return self._test(number, EVTCHN_FIFO_LINKED)

    def set_pending(self, port: Port) -> None:
        """Make an event pending and queue it unless it is masked."""
        number = port.number
        if self.word(number) is None:
            self._kept.add(number)
            return
        block = self._blocks.get(0)
        if block is None:
            return
        was_pending = self._set(number, EVTCHN_FIFO_PENDING)
        masked = self._test(number, EVTCHN_FIFO_MASKED)
        if not masked and not self._set(number, EVTCHN_FIFO_LINKED):
            self._enqueue(port, block)
        if not was_pending:
            self._machine.check_pollers(number)

    def _enqueue(self, port: Port, block: memoryview) -> None:
        """Put a port that has just become linked at the end of its queue."""
        number, queue = port.number, port.priority
        old = self._queue_of.get(number, 0)
        # A tail that comes anew: its queue is empty now.
        if self._tails[old] == number:
            self._tails[old] = 0
        self._queue_of[number] = queue
        tail = self._tails[queue]
        self._tails[queue] = number
        if tail and self._set_link(tail, number):
            return
        struct.pack_into("<I", block, HEAD + 4 * queue, number)
        (ready,) = struct.unpack_from("<I", block, READY)
        struct.pack_into("<I", block, READY, ready | 1 << queue)
        if not ready >> queue & 1:
            self._machine.vcpu_info(0)[VCPU_INFO_PENDING] = 1

    def _set_link(self, tail: int, number: int) -> bool:
        """Let the old tail point to a port. Returns False when the guest has unlinked it."""
        word = self.word(tail)
        if word is None or not word >> EVTCHN_FIFO_LINKED & 1:
            return False
        self._store(tail, word & ~(1 << EVTCHN_FIFO_BUSY | LINK_MASK) | number)
        return True

    def clear_pending(self, number: int) -> None:
        """Take back a pending event."""
        self._clear(number, EVTCHN_FIFO_PENDING)

    def unmask(self, port: Port) -> None:
        """Let a port be linked, at once when it is pending."""
        if self.word(port.number) is None:
            return
        self._clear(port.number, EVTCHN_FIFO_MASKED)
        if self.is_pending(port.number):
            self.set_pending(port)

    def set_priority(self, port: Port, priority: int) -> None:
        """Set the queue of the port's next events. Raises XenRefuses EINVAL."""
        if priority > EVTCHN_FIFO_PRIORITY_MIN:
            raise XenRefuses(EINVAL)
        port.priority = priority
