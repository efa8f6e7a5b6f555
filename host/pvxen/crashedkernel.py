"""The crashed kernel of an embedded domain: it leaves its rings and grants as a crash does.

Tests use it on a domain before the drivers under test start. It makes the hypercalls that the
kernel made, with pages and grant entries of its own at the low end. So the backend is really
connected to a ring that nobody reads any more, and events go where that kernel wanted them.
"""

from __future__ import annotations

import struct

from xenpv import abi
from xenpv.block.blkif import SEGMENT, X86_64
from xenpv.block.ring import slots

from . import public
from .domain import EmbeddedDomain
from .faultydisk import FaultyDevice
from .machine import DOM0, MASKED_WORD

FIRST_GFN = 16
SLOTS = slots(1, X86_64.stride)
U32 = 0xFFFFFFFF


class CrashedKernel:
    """Acts as the kernel of `guest` before it crashed.

    Attributes: rings (dict): the gfn of each ring that connect() left, by its backend's path.
    """

    def __init__(self, guest: EmbeddedDomain) -> None:
        self.guest = guest
        self._gfn = FIRST_GFN
        self._arg = self.page() * abi.PAGE_SIZE
        self._ref = abi.GNTTAB_NR_RESERVED_ENTRIES
        self.rings: dict[str, int] = {}

    def call(self, nr: int, cmd: int, fmt: str, *fields: int) -> bytes:
        """Make one hypercall. fmt, fields: its structure. Returns the structure as Xen left it."""
        machine = self.guest.machine
        struct.pack_into(fmt, machine.ram, self._arg, *fields)
        answer = machine.hypercall(nr, (cmd, self._arg, 1))
        if answer < 0:
            raise ValueError(f"hypercall {nr}, operation {cmd}: {answer}")
        return machine.ram[self._arg : self._arg + struct.calcsize(fmt)]

    def page(self) -> int:
        """Take a page of its own. Returns the gfn."""
        self._gfn += 1
        return self._gfn - 1

    def use_fifo(self) -> None:
        """Change to FIFO event channels as Linux does: a control block, one page of words."""
        control, array = self.page(), self.page()
        machine, op = self.guest.machine, abi.HYPERVISOR_event_channel_op
        machine.page(array)[:] = MASKED_WORD * (abi.PAGE_SIZE // len(MASKED_WORD))
        self.call(op, public.EVTCHNOP_init_control, "<QIIQ", control, 0, 0, 0)
        self.call(op, public.EVTCHNOP_expand_array, "<Q", array)
        for port in machine.evtchn.of(machine.domid):
            self.call(op, abi.EVTCHNOP_unmask, "<I", port.number)

    def use_grants_v2(self) -> None:
        """Change the grant table to version 2."""
        op = abi.HYPERVISOR_grant_table_op
        self.call(op, abi.GNTTABOP_set_version, "<I", 2)

    def alloc_unbound(self) -> int:
        """Offer an event channel to domain 0. Returns the port."""
        op, fields = abi.HYPERVISOR_event_channel_op, (abi.DOMID_SELF, DOM0, 0)
        answer = self.call(op, abi.EVTCHNOP_alloc_unbound, "<HHI", *fields)
        port = int.from_bytes(answer[4:], "little")
        self.call(op, abi.EVTCHNOP_unmask, "<I", port)
        return port

    def grant(self, gfn: int, readonly: bool = False) -> int:
        """Grant a frame to domain 0. Returns the reference."""
        flags = abi.GTF_permit_access | (abi.GTF_readonly if readonly else 0)
        self.guest.machine.gnttab.set_entry(self._ref, flags, DOM0, gfn)
        self._ref += 1
        return self._ref - 1

    def connect(self, disk: FaultyDevice, start: int = 0) -> None:
        """Leave the disk connected. start: the value of the ring's indexes."""
        machine, store = self.guest.machine, self.guest.store
        gfn = self.page()
        for i, value in enumerate((start, start + 1, start, start + 1)):
            struct.pack_into("<I", machine.page(gfn), 4 * i, value & U32)
        store.write(f"{disk.front}/ring-ref", self.grant(gfn))
        store.write(f"{disk.front}/event-channel", self.alloc_unbound())
        store.write(f"{disk.front}/protocol", "x86_64-abi")
        self.guest.settle()
        store.write(f"{disk.front}/state", abi.XenbusStateConnected)
        self.guest.settle()
        if disk.state != abi.XenbusStateConnected:
            raise ValueError(f"{disk.path}: state {disk.state}, cannot be left connected")
        self.rings[disk.path] = gfn

    def write_in_flight(self, disk: FaultyDevice, sector: int, data: bytes) -> None:
        """Leave a request of one page in the ring, without an event to the backend."""
        machine = self.guest.machine
        gfn = self.page()
        machine.page(gfn)[: len(data)] = data
        ring = machine.page(self.rings[disk.path])
        (prod,) = struct.unpack_from("<I", ring, abi.SRING_REQ_PROD)
        entry = X86_64.request(abi.BLKIF_OP_WRITE, 1, 0xDEAD, sector)
        entry += struct.pack(SEGMENT, self.grant(gfn, readonly=True), 0, len(data) // 512 - 1)
        at = abi.SRING_RING + prod % SLOTS * X86_64.stride
        ring[at : at + len(entry)] = entry
        struct.pack_into("<I", ring, abi.SRING_REQ_PROD, (prod + 1) & U32)
