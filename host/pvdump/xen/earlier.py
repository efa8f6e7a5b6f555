"""What the kernel that ran before left behind when it died.

Used by tests on a guest.Guest before the drivers under test start. It acts as that kernel would
have acted, by the same hypercalls' effects, with pages and grant entries of its own at the low
end: so the backend really is connected to a ring that nobody looks at any more.
"""

from __future__ import annotations

import struct

from xenpv import abi

from .blkback import BlkBack
from .blkring import SLOTS, STRIDE, U32
from .guest import Guest
from .machine import DOM0

FIRST_GFN = 16


class EarlierKernel:
    def __init__(self, guest: Guest) -> None:
        self.guest = guest
        self._gfn = FIRST_GFN
        self._ref = abi.GNTTAB_NR_RESERVED_ENTRIES
        self.rings: dict[str, int] = {}  # of each backend's path: the ring's gfn

    def page(self) -> int:
        """A page of its own. Returns the gfn."""
        self._gfn += 1
        return self._gfn - 1

    def grant(self, gfn: int, readonly: bool = False) -> int:
        """Lend a frame to domain 0. Returns the reference."""
        flags = abi.GTF_permit_access | (abi.GTF_readonly if readonly else 0)
        self.guest.machine.gnttab.set_entry(self._ref, flags, DOM0, gfn)
        self._ref += 1
        return self._ref - 1

    def connect(self, disk: BlkBack, start: int = 0) -> None:
        """Leave the disk connected. start: the ring's indexes had come to this."""
        machine, store = self.guest.machine, self.guest.store
        gfn = self.page()
        for i, value in enumerate((start, start + 1, start, start + 1)):
            struct.pack_into("<I", machine.page(gfn), 4 * i, value & U32)
        port = machine.evtchn.alloc_unbound(machine.domid, DOM0)
        store.write(f"{disk.front}/ring-ref", self.grant(gfn))
        store.write(f"{disk.front}/event-channel", port)
        store.write(f"{disk.front}/protocol", "x86_64-abi")
        self.guest.settle()
        store.write(f"{disk.front}/state", abi.XenbusStateConnected)
        self.guest.settle()
        if disk.state != abi.XenbusStateConnected:
            raise ValueError(f"{disk.path}: state {disk.state}, cannot be left connected")
        self.rings[disk.path] = gfn

    def write_in_flight(self, disk: BlkBack, sector: int, data: bytes) -> None:
        """Leave a request of one page in the ring, of which the backend was not told."""
        machine = self.guest.machine
        gfn = self.page()
        machine.page(gfn)[: len(data)] = data
        ring = machine.page(self.rings[disk.path])
        (prod,) = struct.unpack_from("<I", ring, abi.SRING_REQ_PROD)
        at = abi.SRING_RING + prod % SLOTS * STRIDE
        struct.pack_into("<BBH4xQQ", ring, at, abi.BLKIF_OP_WRITE, 1, 0, 0xDEAD, sector)
        segment = (self.grant(gfn, readonly=True), 0, len(data) // 512 - 1)
        struct.pack_into("<IBB", ring, at + abi.BLKIF_REQUEST_SEG, *segment)
        struct.pack_into("<I", ring, abi.SRING_REQ_PROD, (prod + 1) & U32)
