"""The embedded machine: one guest's RAM, one vCPU, and the Xen below it.

Given to hw.attach() or to a Cpu; tests use it to see what Xen, the toolstack or a backend sees.
The rule: time moves only here. A hypercall takes COST_HYPERCALL, hw.now() COST_NOW, and a wait
moves the time to the next event; a wait that nothing can end raises Deadlock.
"""

from __future__ import annotations

import mmap
import random
from collections.abc import Callable, Sequence
from errno import EINVAL, ENOSYS

from xenpv import abi

from . import hypercalls
from .clock import SECOND, TIME_INFO_SIZE, Timer
from .evtchn import XenRefuses
from .evtchn_2l import VCPU_INFO_PENDING, VCPU_INFO_PENDING_SEL, TwoLevel
from .evtchn_fifo import Fifo
from .gnttab import GrantTable
from .hypervisor import DOM0, Hypervisor
from .physmap import Physmap
from .public import EVTCHN_FIFO_MASKED

__all__ = ["DOM0", "RAM", "Deadlock", "Machine", "Shutdown"]

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
VCPU_INFO_SIZE = 64
MASKED_WORD = (1 << EVTCHN_FIFO_MASKED).to_bytes(4, "little")
RAM = 1  # type of a memory map entry, E820 and PVH alike


class Shutdown(BaseException):
    """The domain shut down; `reason` is one of SHUTDOWN_*. No guest code runs afterwards."""

    def __init__(self, reason: int) -> None:
        super().__init__(f"the domain shut down, reason {reason}")
        self.reason = reason


class Jump(BaseException):
    """The guest entered a kernel; entry and params are physical addresses."""

    def __init__(self, entry: int, params: int) -> None:
        super().__init__(f"a jump to 0x{entry:x}, boot_params at 0x{params:x}")
        self.entry, self.params = entry, params


class Deadlock(BaseException):
    """The guest waits without a deadline, and no step or timer is left that could wake it."""


class Machine(Physmap):
    """The RAM and the one vCPU of a guest.

    Args:
        size: bytes of RAM.
        hypervisor: the Xen below; None: one of its own, with `seed` and `now`.
        events: the event channel interface that the crashed kernel left in force: "2l"; "fifo",
            where polls end but no bit of shared_info is ever touched; "dead", FIFO with an event
            array that has no word for any port, where not even a poll ends.
        vcpu: the vCPU that runs.
        cmdline, modules, memmap, door: what hw.boot() gives.
        region: (start, end), physical addresses of the memory that alloc_pages takes from.
        rng_seed: random bytes that the loader gives to a bzImage, as kexec_file_load does.
    """

    def __init__(
        self,
        size: int = 16 << 20,
        *,
        ram: mmap.mmap | None = None,
        hypervisor: Hypervisor | None = None,
        seed: int = 0,
        now: int = 1000 * SECOND,
        events: str = "2l",
        domid: int = 1,
        vcpu: int = 0,
        version: tuple[int, int] = (4, 17),
        cmdline: bytes = b"",
        modules: Sequence[tuple[int, int]] = (),
        memmap: Sequence[tuple[int, int, int]] | None = None,
        region: tuple[int, int] | None = None,
        door: str = "pvh",
        rng_seed: bytes = b"",
        gnttab_frames: int = 1,
        gnttab_max_frames: int = 64,
        gnttab_version: int = 1,
        gnttab_max_version: int = 2,
    ) -> None:
        super().__init__(size, ram)
        self.hypervisor = hypervisor or Hypervisor(seed, now)
        self.clock = self.hypervisor.clock
        self.evtchn = self.hypervisor.evtchn
        self.domid = domid
        self.hypervisor.machines[domid] = self
        self.version = version
        self.region = region or (size // 2, size - (1 << 20))
        self._vcpu = vcpu
        self.vcpus = vcpu + 1
        self._taken = self._new_pool()
        memmap = tuple(memmap or ((0, size, RAM),))
        self._boot = (door, cmdline, tuple(modules), memmap, self.region)
        self.rng_seed = rng_seed
        self.params: dict[int, int] = {}
        self.shared_info_page = self.new_page()
        self._vcpu_infos: dict[int, memoryview] = {}  # where the guest registered them
        self._time_area: memoryview | None = None  # where the guest has Xen write its time
        self.events: TwoLevel | Fifo = TwoLevel(self)
        self._polls: int | None = None  # the port polled, -1 for any, None when it does not poll
        self.gnttab = GrantTable(
            self, gnttab_frames, gnttab_max_frames, gnttab_version, gnttab_max_version
        )
        self.watchdogs: dict[int, Timer] = {}
        self._own_watchdog = 0
        self.shutdown_reason: int | None = None
        self.on_shutdown: list[Callable[[], None]] = []
        # Called with the ns that nothing happens for, before they pass; it may cause something.
        self.on_idle: Callable[[int], None] | None = None
        self.rsdp = 0
        # What the system time of the host that it runs on is ahead of the clock, ns.
        self.host_time = 0
        self.hypercalls = 0
        self._entropy = random.Random(self.clock.seed)
        self._leave_events(events)

    def _leave_events(self, events: str) -> None:
        """Set up the event channels that the crashed kernel used, in the last pages but two."""
        if events not in ("2l", "fifo", "dead"):
            raise ValueError(f'events: "2l", "fifo" or "dead" expected, {events!r} found')
        last = len(self.ram) // abi.PAGE_SIZE - 1
        if events != "2l":
            self.init_control(last - 2, 0, 0)
        if events == "fifo":
            # As Linux has it: every event masked until it is bound.
            self.page(last - 3)[:] = MASKED_WORD * (abi.PAGE_SIZE // len(MASKED_WORD))
            assert isinstance(self.events, Fifo)
            self.events.expand_array(last - 3)

    # What hw asks for.

    def hypercall(self, nr: int, args: Sequence[int]) -> int:
        """Return Xen's answer, negative errno when it refuses. Raises Shutdown and Deadlock."""
        self._check_running()
        self.hypercalls += 1
        self.clock.advance(self.clock.now + COST_HYPERCALL)
        self._check_running()
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
        self._check_running()
        if self._time_area is not None:
            self._time_area[:] = self.clock.time_info(self.host_time)
        return answer

    def _check_running(self) -> None:
        if self.shutdown_reason is not None:
            raise Shutdown(self.shutdown_reason)

    def cpuid(self, leaf: int, sub: int = 0) -> tuple[int, int, int, int]:
        """Return Xen's own leaves, zeroes for all others."""
        if leaf == XEN_LEAF:
            words = [int.from_bytes(b"XenVMMXenVMM"[i : i + 4], "little") for i in (0, 4, 8)]
            return XEN_LEAF + 5, words[0], words[1], words[2]
        if leaf == XEN_LEAF + 1:
            return self.version[0] << 16 | self.version[1], 0, 0, 0
        if leaf == XEN_LEAF + 4 and sub == 0:
            return 1 << 3 | 1 << 4, self._vcpu, self.domid, 0
        return 0, 0, 0, 0

    def now(self) -> int:
        """Return Xen's system time, ns; each call costs COST_NOW."""
        self.clock.now += COST_NOW
        return self.clock.now + self.host_time

    def _new_pool(self) -> bytearray:
        """Return a byte for each page of the region, 1 for a taken one; none is."""
        return bytearray((self.region[1] - self.region[0]) // abi.PAGE_SIZE)

    def alloc_pages(self, n: int) -> int:
        """Return the address of n zeroed pages of the region. Raises MemoryError."""
        first = self._taken.find(bytes(n))
        if first < 0:
            left = self._taken.count(0)
            raise MemoryError(f"alloc_pages: {n} pages wanted, {left} of the region left")
        self._taken[first : first + n] = b"\1" * n
        start = self.region[0] + first * abi.PAGE_SIZE
        self.ram[start : start + n * abi.PAGE_SIZE] = bytes(n * abi.PAGE_SIZE)
        return start

    def free_pages(self, addr: int, n: int) -> None:
        """Give n pages back. Raises ValueError if they were not taken."""
        first, rest = divmod(addr - self.region[0], abi.PAGE_SIZE)
        if rest or first < 0 or self._taken[first : first + n] != b"\1" * n:
            raise ValueError(f"no {n} taken pages at 0x{addr:x}")
        self._taken[first : first + n] = bytes(n)

    def boot(self) -> Boot:
        """Return what hw.boot() returns."""
        return self._boot

    def xen(self) -> int:
        """Return Xen's first CPUID leaf."""
        return XEN_LEAF

    def vcpu(self) -> int:
        """Return the vCPU that runs."""
        return self._vcpu

    def shared_info(self) -> int:
        """Map the shared_info page when it is first asked for; the image's C does it at start."""
        if self.shared_info_page.gfn is None:
            self.place(self.shared_info_page, self.alloc_pages(1) // abi.PAGE_SIZE)
        assert self.shared_info_page.gfn is not None
        return self.shared_info_page.gfn * abi.PAGE_SIZE

    def entropy(self) -> bytes:
        """Return what hw.entropy() returns: here it follows from the seed."""
        return self._entropy.randbytes(80)

    def watchdog(self, seconds: int) -> None:
        """Do what boot/ does for hw.watchdog: arm one watchdog again, or disarm it (0)."""
        if self._own_watchdog == 0:
            if seconds:
                self._own_watchdog = hypercalls.watchdog(self, 0, seconds)
        else:
            hypercalls.watchdog(self, self._own_watchdog, seconds)
            if seconds == 0:
                self._own_watchdog = 0

    def jump(self, entry: int, params: int) -> None:
        """Raise Jump: under CPython no kernel runs."""
        raise Jump(entry, params)

    def suspend(self) -> int:
        """Do what boot/ does for hw.suspend."""
        at = self.shared_info()
        self.watchdog(0)
        self._time_area = None
        answer = hypercalls.suspend(self)
        self._own_watchdog = 0
        self.place(self.shared_info_page, at // abi.PAGE_SIZE)
        return answer

    def console_flush(self, ms: int) -> None:
        """Do nothing: under CPython print() uses no console ring."""

    # Events.

    def vcpu_info(self, vcpu: int) -> memoryview:
        """Return the 64 bytes of a vCPU's vcpu_info."""
        if vcpu in self._vcpu_infos:
            return self._vcpu_infos[vcpu]
        return self.shared_info_page.view[vcpu * VCPU_INFO_SIZE : (vcpu + 1) * VCPU_INFO_SIZE]

    def register_vcpu_info(self, vcpu: int, gfn: int, offset: int) -> None:
        """Put a vcpu_info into guest memory; all is marked pending, so that no event is lost."""
        if vcpu in self._vcpu_infos or offset > abi.PAGE_SIZE - VCPU_INFO_SIZE or offset % 8:
            raise XenRefuses(EINVAL)
        if not self.is_ram(gfn):
            raise XenRefuses(EINVAL)
        view = self.page(gfn)[offset : offset + VCPU_INFO_SIZE]
        view[:] = self.vcpu_info(vcpu)
        view[VCPU_INFO_PENDING] = 1
        view[VCPU_INFO_PENDING_SEL : VCPU_INFO_PENDING_SEL + 8] = b"\xff" * 8
        self._vcpu_infos[vcpu] = view

    def register_time_area(self, address: int) -> None:
        """Write the vCPU's time to guest memory now and after each hypercall; to 0: no more."""
        if not address:
            self._time_area = None
            return
        self._time_area = memoryview(self.ram)[address : address + TIME_INFO_SIZE]
        self._time_area[:] = self.clock.time_info(self.host_time)

    def init_control(self, gfn: int, offset: int, vcpu: int) -> None:
        """Change to FIFO with the first control block; pending events are kept."""
        if isinstance(self.events, Fifo):
            self.events.init_control(gfn, offset, vcpu)
            return
        fifo = Fifo(self)
        fifo.init_control(gfn, offset, vcpu)
        for port in self.evtchn.of(self.domid):
            if self.events.is_pending(port.number):
                fifo.keep(port.number)
        self.events = fifo

    def reset_events(self) -> None:
        """Do EVTCHNOP_reset: close every port, the store's too, and return to 2-level."""
        self.evtchn.close_all(self.domid)
        self.events = TwoLevel(self)

    def upcall_pending(self) -> bool:
        """Return whether an unmasked event is pending, which ends SCHEDOP_block."""
        return bool(self.vcpu_info(self._vcpu)[VCPU_INFO_PENDING])

    def forget_vcpu_infos(self) -> None:
        """Forget the areas of vCPUs that are registered in guest memory."""
        self._vcpu_infos.clear()
        self._time_area = None

    def check_pollers(self, number: int) -> None:
        """End the poll that a newly pending event ends: one on this port, or on none or several."""
        if self._polls in (-1, number):
            self._polls = None

    def poll(self, ports: Sequence[int], until: int) -> None:
        """Wait until one of the guest's ports has an event, or until Xen time `until` (0: ever).

        As in Xen, a poll on none or several of them ends with any new event of the guest. No upcall
        ends it: interrupts are taken to be off.
        """
        # Steps that are ready run while the guest asks, even when its answer is there already.
        self.clock.run_one()
        for port in ports:
            self.evtchn.port(self.domid, port)
            if self.events.is_pending(port):
                return
        self._polls = ports[0] if len(ports) == 1 else -1
        if until:
            until = max(until - self.host_time, 1)
        try:
            self.wait(lambda: self._polls is None, until, f"{list(ports)}")
        finally:
            self._polls = None

    def wait(self, over: Callable[[], bool], until: int, what: str) -> None:
        """Run the others and let time pass until over() is true or Xen time `until` (0: ever)."""
        clock = self.clock
        while not (self.shutdown_reason is not None or over() or (until and clock.now >= until)):
            if clock.run_one():
                continue
            times = [when for when in (clock.next(), until or None) if when is not None]
            if not times:
                raise Deadlock(
                    f"the guest waits without a deadline on ports {what}: no step of the other "
                    f"side is ready and no timer is set (events: {self.events.name})"
                )
            if self.on_idle is not None:
                self.on_idle(max(min(times) - clock.now, 0))
                if clock.run_one():
                    continue
            clock.advance(min(times))

    # Its end, and another kernel's beginning.

    def shutdown(self, reason: int) -> None:
        """End the domain; its current or next hypercall raises Shutdown."""
        if self.shutdown_reason is None:
            self.shutdown_reason = reason
            for tell in self.on_shutdown:
                tell()

    def wait_resumed(self) -> None:
        """Let the others work until the toolstack lets the domain go on. Raises Shutdown if none
        of them has anything to do."""
        clock = self.clock
        while self.shutdown_reason is not None:
            if clock.run_one():
                continue
            when = clock.next()
            if when is None:
                raise Shutdown(self.shutdown_reason)
            clock.advance(when)

    def watchdog_bites(self) -> None:
        """Shut the domain down for its watchdog."""
        self.shutdown(abi.SHUTDOWN_watchdog)

    def move(self, domid: int, host_time: int = 0) -> None:
        """Become another domain, as it is made from the image of a saved one.

        It has nothing of Xen's: no port, no grant, no watchdog. Where Xen's frames were mapped
        there are holes. Source: tools/libs/guest/xg_sr_save.c, xg_sr_restore.c.

        Args:
            domid: its number.
            host_time: what the new host's system time is ahead of the clock, ns.
        """
        self.evtchn.close_all(self.domid)
        for timer in self.watchdogs.values():
            self.clock.cancel(timer)
        self.watchdogs.clear()
        for page in [self.shared_info_page, *self.gnttab.frames, *self.gnttab.status_frames]:
            self.take_back(page)
        del self.hypervisor.machines[self.domid]
        self.domid, self.host_time = domid, host_time
        self.hypervisor.machines[domid] = self
        self.shared_info_page = self.new_page()
        self.forget_vcpu_infos()
        self.events = TwoLevel(self)
        self.gnttab = GrantTable(self, 1, self.gnttab.max_frames, 1, self.gnttab.max_version)
        self.params.clear()
        self.shutdown_reason = None

    def kexec(self, region: tuple[int, int] | None = None) -> None:
        """Start the crash kernel in the same memory, with pages of its own in its region."""
        self.region = region or self.region
        self._boot = ("bzimage", *self._boot[1:4], self.region)
        self._taken = self._new_pool()
        self._own_watchdog = 0
