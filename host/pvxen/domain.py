"""One domain as the toolstack makes it: machine, special pages, nodes, the store's ring, disks.

Made by toolstack.Toolstack.create() and guest.EmbeddedGuest. Parameters and nodes are those that
libxl sets for an HVM guest. Source: Xen tools/libs/light/libxl_create.c, libxl_dom.c, libxl_disk.c.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import hw
from pvdump.blkback.sink import Sink
from xenpv import abi

from .faults import Faults
from .faultydisk import FaultyDevice, FaultySink
from .faultystorering import FaultyStoreRing
from .machine import DOM0, Machine
from .ringfaults import Fault
from .scenario import Scenario
from .storering import RingTransport

if TYPE_CHECKING:
    from .toolstack import Toolstack

NOT_READY = 0xFFFFFFFFFFFFFFFF
EVTCHNS = {"store": abi.HVM_PARAM_STORE_EVTCHN, "console": abi.HVM_PARAM_CONSOLE_EVTCHN}
# Nodes below control that the guest may write; it may make no others.
GUESTS_CONTROLS = (
    *("shutdown", "feature-poweroff", "feature-reboot", "feature-suspend"),
    *("feature-s3", "feature-s4", "sysrq"),
)
GRANT_CONSOLE = 0
GRANT_XENSTORE = 1
# Pages from the end of RAM: store, console, two pages of the crashed kernel's event channels, then
# the server's side of a ring with faults.
BACK_PAGE = 5


class EmbeddedDomain:
    """A domain as libxl makes it, with its store ring and disks.

    Args:
        xen: the toolstack that it belongs to.
        domid: its number.
        size: bytes of RAM.
        name: its name in the store.
        store: "running", "absent" (no page was set up) or "late" (the page is not ready yet).
        server_features, start, reorder, piecemeal, fragile: of the store's ring, see RingTransport.
        scenario: the faults of the ring and the disks, and the ring's first index; None: no faults.
        machine: all other options, for Machine.
    """

    def __init__(
        self,
        xen: Toolstack,
        domid: int = 1,
        size: int = 16 << 20,
        *,
        name: str = "guest",
        store: str = "running",
        server_features: int = 0,
        start: tuple[int, int] = (0, 0),
        reorder: bool = False,
        piecemeal: bool = False,
        fragile: bool = False,
        scenario: Scenario | None = None,
        **machine: object,
    ) -> None:
        if store not in ("running", "absent", "late"):
            raise ValueError(f'store: "running", "absent" or "late" expected, {store!r} found')
        if domid in xen.domains:
            raise ValueError(f"domain {domid} is there already")
        self.xen = xen
        self.domid = domid
        self.name = name
        self.home = f"/local/domain/{domid}"
        self.store = xen.store
        self.paused = False
        self.disks: dict[str, FaultyDevice] = {}
        self.on_move: list[Callable[[], None]] = []  # called when it has become another domain
        self._faults: list[Fault] = []
        self._disk_faults: dict[str, object] = {}
        if scenario is not None:
            self._faults = scenario.faults()
            self._disk_faults = dict(scenario.disk)
            server_features, start = scenario.ring.server_features, scenario.ring.start
            piecemeal = scenario.ring.piecemeal
            fragile = scenario.ring.fragile
        self._ring_options: dict[str, Any] = {
            "features": server_features,
            "reorder": reorder,
            "piecemeal": piecemeal,
            "fragile": fragile,
        }
        options = {"hypervisor": xen.hypervisor, "domid": domid, **machine}
        self.machine = Machine(size, **options)  # type: ignore[arg-type]
        self.machine.on_shutdown.append(self._tell_store)
        xen.domains[domid] = self
        self.set_up(start)
        if store == "absent":
            self.machine.params[abi.HVM_PARAM_STORE_PFN] = 0
        elif store == "late":
            self.machine.params[abi.HVM_PARAM_STORE_PFN] = NOT_READY

    @property
    def shutdown_reason(self) -> int | None:
        """One of SHUTDOWN_*, None while the domain runs."""
        return self.machine.shutdown_reason

    def _tell_store(self) -> None:
        self.store.shut_down(self.domid)

    # What libxl does.

    def set_up(self, start: tuple[int, int]) -> None:
        """Make special pages, channels, grants and nodes, and the store's ring from `start` on."""
        self._special_pages()
        self._nodes()
        self._serve(start)

    def renew(self, start: tuple[int, int]) -> None:
        """Make new channels for the special pages, and serve the store's ring from `start` on."""
        self._channels()
        for name in ("store", "console"):
            port = self.machine.params[EVTCHNS[name]]
            self.store.write(f"{self.home}/{name}/port", port)
        self.store.rm(f"{self.home}/memory/target")
        self._serve(start)

    def move(self, domid: int, host_time: int) -> None:
        """Become another domain with the same memory, but for the store's and console's pages.

        domid, host_time: as for Machine.move().
        """
        self.machine.move(domid, host_time)
        self.domid, self.home = domid, f"/local/domain/{domid}"
        last = len(self.machine.ram) // abi.PAGE_SIZE - 1
        for gfn in (last, last - 1):
            self.machine.page(gfn)[:] = bytes(abi.PAGE_SIZE)
        self.set_up((0, 0))
        for name, device in list(self.disks.items()):
            self.attach_disk(name, device.sink, device.faults)
        for tell in self.on_move:
            tell()

    def _serve(self, start: tuple[int, int]) -> None:
        params = self.machine.params
        gfn = len(self.machine.ram) // abi.PAGE_SIZE - 1
        self.ring = self.introduce(gfn, params[abi.HVM_PARAM_STORE_EVTCHN], start)

    def introduce(self, gfn: int, port: int, start: tuple[int, int] = (0, 0)) -> RingTransport:
        """Have the store serve a page of the guest."""
        machine, options = self.machine, self._ring_options
        page = len(machine.ram) // abi.PAGE_SIZE - BACK_PAGE if self._faults else gfn
        with hw.attached(machine):
            transport = RingTransport(machine, self.store, page, port, start=start, **options)
            if self._faults:
                FaultyStoreRing(machine, transport, gfn, self._faults)
            return transport

    def _special_pages(self) -> None:
        """Make the last two pages the store's and the console's, with channels and grants."""
        pages = len(self.machine.ram) // abi.PAGE_SIZE
        special = (
            (abi.HVM_PARAM_STORE_PFN, pages - 1, GRANT_XENSTORE),
            (abi.HVM_PARAM_CONSOLE_PFN, pages - 2, GRANT_CONSOLE),
        )
        for pfn, gfn, ref in special:
            self.machine.params[pfn] = gfn
            self.machine.gnttab.set_entry(ref, abi.GTF_permit_access, DOM0, gfn)
        self._channels()

    def _channels(self) -> None:
        for evtchn in EVTCHNS.values():
            self.machine.params[evtchn] = self.machine.evtchn.alloc_unbound(self.domid, DOM0)

    def indexes(self) -> tuple[int, int]:
        """Read the consumers' indexes of the store's ring: (request, reply)."""
        page = self.machine.page(len(self.machine.ram) // abi.PAGE_SIZE - 1)
        (request,) = struct.unpack_from("<I", page, abi.XENSTORE_RING_REQ_CONS)
        (reply,) = struct.unpack_from("<I", page, abi.XENSTORE_RING_RSP_CONS)
        return request, reply

    def _nodes(self) -> None:
        write, home, domid = self.store.write, self.home, self.domid
        params = self.machine.params
        write(home, "", f"n0 r{domid}")
        write(f"{home}/domid", domid)
        write(f"{home}/name", self.name)
        write(f"{home}/memory/target", len(self.machine.ram) // 1024)
        write(f"{home}/memory/static-max", len(self.machine.ram) // 1024)
        write(f"{home}/store/port", params[abi.HVM_PARAM_STORE_EVTCHN])
        write(f"{home}/store/ring-ref", params[abi.HVM_PARAM_STORE_PFN])
        write(f"{home}/console/port", params[abi.HVM_PARAM_CONSOLE_EVTCHN])
        write(f"{home}/console/ring-ref", params[abi.HVM_PARAM_CONSOLE_PFN])
        write(f"{home}/console/type", "xenconsoled")
        write(f"{home}/control/platform-feature-xs_reset_watches", 1)
        write(f"{home}/control/platform-feature-multiprocessor-suspend", 1)
        for name in GUESTS_CONTROLS:
            write(f"{home}/control/{name}", "", f"n{domid}")
        for name in ("data", "drivers", "feature", "attr", "error"):
            write(f"{home}/{name}", "", f"n{domid}")

    def remove_nodes(self) -> None:
        """Remove the domain's nodes and those of its disks."""
        self.store.rm(self.home)
        for device in self.disks.values():
            self.store.rm(device.path)

    # Disks.

    def disk(self, name: str, sink: Sink, **faults: object) -> FaultyDevice:
        """Attach a disk. name: such as "xvdb"; faults: of Faults. Returns its backend."""
        options = {**self._disk_faults, **faults}
        return self.attach_disk(name, sink, Faults(**options))  # type: ignore[arg-type]

    def attach_disk(self, name: str, sink: Sink, faults: Faults) -> FaultyDevice:
        """Attach a disk whose backend has these faults."""
        make = functools.partial(FaultyDevice, sink, faults, self.xen.clock)
        mode = "r" if faults.read_only else "w"
        device = self.xen.blkback.attach(self, name, FaultySink(sink, faults), mode, make)
        assert isinstance(device, FaultyDevice)
        self.disks[name] = device
        return device

    def settle(self) -> None:
        """Run the other side until it has nothing to do."""
        self.xen.settle()
