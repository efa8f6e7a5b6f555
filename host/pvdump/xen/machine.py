"""The embedded machine: one guest's RAM, one vCPU, and the Xen below it.

Given to hw.attach(); tests reach through it for what Xen, the toolstack or a backend would see.
Physical address 0 is the first byte of `ram`. Frames that belong to Xen (shared_info, the grant
table) live apart until the guest maps them: then the guest's page becomes their home and what it
held is lost, as on a real machine; the page they leave becomes a hole that reads as ones.
The rule: time moves only here. A hypercall takes COST_HYPERCALL, a look at the clock COST_NOW, and
a wait moves it to the next thing that happens; a wait that nothing can end raises Deadlock.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable, Sequence
from errno import ENOSYS

from xenpv import abi

from . import hypercalls
from .clock import SECOND, Clock, Timer
from .evtchn import EventChannels, XenRefuses
from .gnttab import GrantTable

DOM0 = 0
COST_NOW = 100  # ns
COST_HYPERCALL = 1000
XEN_LEAF = 0x40000000
# Door, command line, modules (address, bytes), memory map (address, bytes, type), region (start,
# end).
Boot = tuple[
    str,
    bytes,
    tuple[tuple[int, int], ...],
    tuple[tuple[int, int, int], ...],
    tuple[int, int],
]
RAM = 1  # type of a memory map entry, E820 and PVH alike


class Shutdown(BaseException):
    """The domain is gone; reason is one of SHUTDOWN_*. No guest code runs after this."""

    def __init__(self, reason: int) -> None:
        super().__init__(f"the domain shut down, reason {reason}")
        self.reason = reason


class Deadlock(BaseException):
    """The guest waits without a deadline for something that nobody will ever do."""


class XenPage:
    """A frame that is Xen's own. gfn: where the guest has it, None when nowhere."""

    def __init__(self) -> None:
        self.gfn: int | None = None
        self.view = memoryview(bytearray(abi.PAGE_SIZE))


class Machine:
    """size: bytes of RAM; region: (start, end) that alloc_pages gives from; seed: see clock.py."""

    def __init__(
        self,
        size: int = 16 << 20,
        *,
        seed: int = 0,
        events: str = "2l",
        domid: int = 1,
        vcpu: int = 0,
        now: int = 1000 * SECOND,
        version: tuple[int, int] = (4, 17),
        cmdline: bytes = b"",
        modules: Sequence[tuple[int, int]] = (),
        memmap: Sequence[tuple[int, int, int]] | None = None,
        region: tuple[int, int] | None = None,
        door: str = "pvh",
        gnttab_frames: int = 1,
        gnttab_max_frames: int = 64,
        gnttab_version: int = 1,
    ) -> None:
        self.ram = mmap.mmap(-1, size)
        self.clock = Clock(seed, now)
        self.domid = domid
        self.version = version
        self.region = region or (size // 2, size - (1 << 20))
        self._vcpu = vcpu
        self._next_page = self.region[0]
        memmap = tuple(memmap or ((0, size, RAM),))
        self._boot = (door, cmdline, tuple(modules), memmap, self.region)
        self._homes: dict[int, XenPage] = {}
        self._msrs: dict[int, int] = {}
        self.holes: set[int] = set()  # gfns without memory behind them (ballooned out)
        self.params: dict[int, int] = {}
        self.shared_info_page = self.new_page()
        self.evtchn = EventChannels(self, events)
        self.gnttab = GrantTable(self, gnttab_frames, gnttab_max_frames, gnttab_version)
        self.watchdogs: dict[int, Timer] = {}
        self._own_watchdog = 0
        self.shutdown_reason: int | None = None
        self.hypercalls = 0

    # What hw asks for.

    def hypercall(self, nr: int, args: Sequence[int]) -> int:
        """Xen's answer, negative errno when it refuses. Raises Shutdown and Deadlock."""
        if self.shutdown_reason is not None:
            raise Shutdown(self.shutdown_reason)
        self.hypercalls += 1
        self.clock.advance(self.clock.now + COST_HYPERCALL)
        entry = hypercalls.TABLE.get(nr)
        if entry is None:
            return -ENOSYS
        try:
            answer = entry(self, *args)
        except XenRefuses as refusal:
            answer = -refusal.errno
        # Others run at the same time as the guest: with a seed, some of them right now.
        if self.clock.seed and self.clock.random.random() < 0.25:
            self.clock.run_one()
        return answer

    def cpuid(self, leaf: int, sub: int = 0) -> tuple[int, int, int, int]:
        """Xen's own leaves, zeroes for all others."""
        if leaf == XEN_LEAF:
            words = [int.from_bytes(b"XenVMMXenVMM"[i : i + 4], "little") for i in (0, 4, 8)]
            return XEN_LEAF + 5, words[0], words[1], words[2]
        if leaf == XEN_LEAF + 1:
            return self.version[0] << 16 | self.version[1], 0, 0, 0
        if leaf == XEN_LEAF + 4 and sub == 0:
            return 1 << 3 | 1 << 4, self._vcpu, self.domid, 0
        return 0, 0, 0, 0

    def rdmsr(self, n: int) -> int:
        return self._msrs.get(n, 0)

    def wrmsr(self, n: int, value: int) -> None:
        self._msrs[n] = value

    def now(self) -> int:
        self.clock.now += COST_NOW
        return self.clock.now

    def alloc_pages(self, n: int) -> int:
        start = self._next_page
        end = start + n * abi.PAGE_SIZE
        if end > self.region[1]:
            left = (self.region[1] - start) // abi.PAGE_SIZE
            raise MemoryError(f"alloc_pages: {n} pages wanted, {left} of the region left")
        self._next_page = end
        self.ram[start:end] = bytes(end - start)
        return start

    def boot(self) -> Boot:
        return self._boot

    def xen(self) -> int:
        return XEN_LEAF

    def vcpu(self) -> int:
        return self._vcpu

    def shared_info(self) -> int:
        """The image maps it before any Python runs; here it is mapped when first asked for."""
        if self.shared_info_page.gfn is None:
            self.place(self.shared_info_page, self.alloc_pages(1) // abi.PAGE_SIZE)
        assert self.shared_info_page.gfn is not None
        return self.shared_info_page.gfn * abi.PAGE_SIZE

    def watchdog(self, seconds: int) -> None:
        """What boot/ does for hw.watchdog: one watchdog of ours, armed anew, 0 to disarm."""
        if self._own_watchdog == 0:
            if seconds:
                self._own_watchdog = hypercalls.watchdog(self, 0, seconds)
        else:
            hypercalls.watchdog(self, self._own_watchdog, seconds)
            if seconds == 0:
                self._own_watchdog = 0

    def console_flush(self, ms: int) -> None:
        """There is no console ring here: print() is CPython's."""

    # What Xen does.

    def new_page(self) -> XenPage:
        return XenPage()

    def place(self, page: XenPage, gfn: int) -> None:
        """Give a frame of Xen's a home in the guest's memory, in place of what is there."""
        evicted = self._homes.pop(gfn, None)
        if evicted is page:
            self._homes[gfn] = page
            return
        if evicted is not None:
            evicted.view = memoryview(bytearray(evicted.view))
            evicted.gfn = None
        here = self.page(gfn)
        here[:] = page.view
        if page.gfn is not None:
            del self._homes[page.gfn]
            page.view[:] = b"\xff" * abi.PAGE_SIZE
            self.holes.add(page.gfn)
        page.gfn, page.view = gfn, here
        self._homes[gfn] = page
        self.holes.discard(gfn)

    def page(self, gfn: int) -> memoryview:
        """The 4096 bytes of a gfn."""
        return memoryview(self.ram)[gfn * abi.PAGE_SIZE : (gfn + 1) * abi.PAGE_SIZE]

    def poll(self, ports: Sequence[int], until: int) -> None:
        """Wait until one of the guest's ports has an event, or until Xen time `until` (0: ever)."""
        # Whoever is ready goes on while the guest asks, even when its answer is there already.
        self.clock.run_one()

        def heard() -> bool:
            return any(self.evtchn.ends_poll(port) for port in ports)

        self.wait(heard, until, f"{list(ports)}")

    def wait(self, over: Callable[[], bool], until: int, what: str) -> None:
        """Run the others and let time pass until over() is true or Xen time `until` (0: ever)."""
        clock = self.clock
        while not over() and not (until and clock.now >= until):
            if clock.run_one():
                continue
            times = [when for when in (clock.next(), until or None) if when is not None]
            if not times:
                raise Deadlock(
                    f"the guest waits without a deadline on ports {what}: no step of the other "
                    f"side is ready and no timer is set (events: {self.evtchn.events})"
                )
            clock.advance(min(times))

    def shutdown(self, reason: int) -> None:
        """The domain ends. Raises Shutdown."""
        self.shutdown_reason = reason
        raise Shutdown(reason)
