"""A guest as the toolstack makes it: machine, store, special pages, disks.

The way into the embedded Xen for tests:

    guest = Guest(seed=1, server_features=1)
    disk = guest.disk("xvdb", Memory(1 << 20), error_after=65536)
    ... drivers and firmware run on `hw`, which is attached to guest.machine ...
    disk.sink.data, disk.states, guest.store.read("/local/domain/1/...")

Parameters and nodes are those that libxl sets. earlier.EarlierKernel then leaves what a kernel that
crashed would have left.
"""

from __future__ import annotations

import re

import hw
from xenpv import abi

from ..xenstored.ring import RingTransport
from ..xenstored.server import Xenstored
from .blkback import BlkBack
from .faults import Faults
from .machine import DOM0, Machine
from .sink import Sink

XVD_MAJOR = 202
NOT_READY = 0xFFFFFFFFFFFFFFFF
GRANT_CONSOLE = 0
GRANT_XENSTORE = 1


def vdev(name: str) -> int:
    """The number of a virtual disk: xvda is 51712. Source: Xen docs, xen-vbd-interface(7)."""
    match = re.fullmatch("xvd([a-p])", name)
    if match is None:
        raise ValueError(f"disk {name!r}: xvda to xvdp expected")
    return XVD_MAJOR << 8 | (ord(match[1]) - ord("a")) << 4


class Guest:
    """store: "running", "absent" (no page was set up) or "late" (the page is not ready yet).

    server_features, start, reorder, piecemeal: of the store's ring, see RingTransport; everything
    else goes to Machine. Attaches `hw` to the machine.
    """

    def __init__(
        self,
        size: int = 16 << 20,
        *,
        store: str = "running",
        server_features: int = 0,
        start: tuple[int, int] = (0, 0),
        reorder: bool = False,
        piecemeal: bool = False,
        **machine: object,
    ) -> None:
        self.machine = Machine(size, **machine)  # type: ignore[arg-type]
        hw.attach(self.machine)
        self.domid = self.machine.domid
        self.home = f"/local/domain/{self.domid}"
        self.store = Xenstored()
        self.disks: dict[str, BlkBack] = {}
        self._special_pages(size // abi.PAGE_SIZE)
        self._nodes()
        params = self.machine.params
        self.ring = RingTransport(
            self.machine,
            self.store,
            params[abi.HVM_PARAM_STORE_PFN],
            params[abi.HVM_PARAM_STORE_EVTCHN],
            features=server_features,
            start=start,
            reorder=reorder,
            piecemeal=piecemeal,
        )
        if store == "absent":
            params[abi.HVM_PARAM_STORE_PFN] = 0
        elif store == "late":
            params[abi.HVM_PARAM_STORE_PFN] = NOT_READY
        elif store != "running":
            raise ValueError(f'store: "running", "absent" or "late" expected, {store!r} found')

    def _special_pages(self, pages: int) -> None:
        """The last two pages are the store's and the console's, with their channels and grants."""
        special = (
            (abi.HVM_PARAM_STORE_PFN, abi.HVM_PARAM_STORE_EVTCHN, pages - 1, GRANT_XENSTORE),
            (abi.HVM_PARAM_CONSOLE_PFN, abi.HVM_PARAM_CONSOLE_EVTCHN, pages - 2, GRANT_CONSOLE),
        )
        for pfn, evtchn, gfn, ref in special:
            self.machine.params[pfn] = gfn
            self.machine.params[evtchn] = self.machine.evtchn.alloc_unbound(self.domid, DOM0)
            self.machine.gnttab.set_entry(ref, abi.GTF_permit_access, DOM0, gfn)

    def _nodes(self) -> None:
        write, home, domid = self.store.write, self.home, self.domid
        write("/local/domain/0/domid", 0)
        write(home, "", f"n0 r{domid}")
        write(f"{home}/domid", domid)
        write(f"{home}/name", "guest")
        write(f"{home}/control/platform-feature-xs_reset_watches", 1)
        write(f"{home}/control/shutdown", "", f"n{domid}")
        for name in ("data", "drivers", "feature", "attr"):
            write(f"{home}/{name}", "", f"n{domid}")

    def disk(self, name: str, sink: Sink, **faults: object) -> BlkBack:
        """Attach a disk. name: such as "xvdb"; faults: of Faults. Returns its backend."""
        options = Faults(**faults)  # type: ignore[arg-type]
        number = vdev(name)
        back = f"/local/domain/0/backend/vbd/{self.domid}/{number}"
        front = f"{self.home}/device/vbd/{number}"
        write = self.store.write
        write(front, "", f"n{self.domid} r0")
        write(back, "", f"n0 r{self.domid}")
        for key, value in (
            ("backend", back),
            ("backend-id", DOM0),
            ("state", abi.XenbusStateInitialising),
            ("virtual-device", number),
            ("device-type", "disk"),
            ("handle", number),
        ):
            write(f"{front}/{key}", value, f"n{self.domid} r0")
        for key, value in (
            ("frontend", front),
            ("frontend-id", self.domid),
            ("online", 1),
            ("dev", name),
            ("mode", "r" if options.read_only else "w"),
            ("device-type", "disk"),
        ):
            write(f"{back}/{key}", value)
        self.disks[name] = BlkBack(self.machine, self.store, back, front, sink, options)
        return self.disks[name]

    def settle(self) -> None:
        """Let the other side do all that it can do now."""
        self.machine.clock.idle()
