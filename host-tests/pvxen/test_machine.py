"""The embedded machine: time, waits, shutdown, Xen's frames, parameters."""

import struct
from errno import EFAULT, EINVAL, ENOSPC, ENOSYS, EPERM, ESRCH

import pytest

import hw
from pvxen.clock import Livelock
from pvxen.machine import Deadlock, Machine, Shutdown
from pvxen.public import HVMMEM_mmio_dm, HVMMEM_ram_rw, HVMOP_get_mem_type
from xenpv import abi

SECOND = 1_000_000_000
ARG = 0x1000
LIST = 0x2000


def call(nr, cmd, fmt, *fields):
    hw.mem(ARG, struct.calcsize(fmt))[:] = struct.pack(fmt, *fields)
    return hw.hypercall(nr, cmd, ARG, 1)


def poll(ports=(), until=0):
    hw.mem(LIST, 4 * len(ports))[:] = struct.pack(f"<{len(ports)}I", *ports)
    return call(abi.HYPERVISOR_sched_op, abi.SCHEDOP_poll, "<QIIQ", LIST, len(ports), 0, until)


def test_a_timeout_takes_virtual_time_only(machine):
    until = hw.now() + 3600 * SECOND
    assert poll(until=until) == 0
    assert until <= hw.now() < until + 1000


def test_a_timeout_that_has_passed_returns_at_once(machine):
    before = hw.now()
    assert poll(until=before - SECOND) == 0
    assert hw.now() - before < SECOND


def test_looking_at_the_clock_takes_time_so_that_a_busy_wait_ends(machine):
    first = hw.now()
    assert hw.now() > first


def test_a_wait_that_nothing_can_end_is_a_deadlock(machine):
    with pytest.raises(Deadlock, match="without a deadline"):
        poll()


def test_another_side_that_keeps_itself_busy_for_ever_is_a_livelock(machine):
    def step():
        machine.clock.soon(step)

    machine.clock.soon(step)
    with pytest.raises(Livelock, match="time stands still"):
        poll(until=machine.clock.now + SECOND)


def test_a_timer_of_the_other_side_goes_off_at_its_own_time(machine):
    seen = []
    start = machine.clock.now
    machine.clock.after(SECOND, lambda: seen.append(machine.clock.now))
    poll(until=start + 5 * SECOND)
    assert seen == [start + SECOND]


def test_a_step_asked_for_twice_runs_once(machine):
    ran = []

    def step():
        ran.append(1)

    machine.clock.soon(step)
    machine.clock.soon(step)
    machine.clock.idle()
    assert ran == [1]


def order_of_steps(seed):
    machine = Machine(seed=seed)
    ran = []
    for i in range(8):
        machine.clock.soon(lambda i=i: ran.append(i))
    machine.clock.idle()
    return ran


def test_seed_0_runs_steps_in_order_and_others_repeat_their_own():
    assert order_of_steps(0) == list(range(8))
    assert order_of_steps(3) == order_of_steps(3)
    assert {tuple(order_of_steps(seed)) for seed in range(1, 6)} != {tuple(range(8))}


def test_shutdown_ends_the_guest_and_is_remembered(machine):
    for _ in range(2):
        with pytest.raises(Shutdown) as end:
            call(abi.HYPERVISOR_sched_op, abi.SCHEDOP_shutdown, "<I", abi.SHUTDOWN_reboot)
        assert end.value.reason == machine.shutdown_reason == abi.SHUTDOWN_reboot


def test_an_except_exception_of_the_guest_does_not_survive_its_shutdown(machine):
    assert not issubclass(Shutdown, Exception)
    assert not issubclass(Deadlock, Exception)


class TestWatchdog:
    def test_one_that_is_not_fed_shuts_the_guest_down(self, machine):
        hw.watchdog(30)
        with pytest.raises(Shutdown) as end:
            poll(until=hw.now() + 31 * SECOND)
        assert end.value.reason == abi.SHUTDOWN_watchdog

    def test_feeding_it_puts_it_off(self, machine):
        for _ in range(3):
            hw.watchdog(30)
            poll(until=hw.now() + 29 * SECOND)

    def test_0_disarms_it(self, machine):
        hw.watchdog(30)
        hw.watchdog(0)
        poll(until=hw.now() + 100 * SECOND)

    def test_there_are_two(self, machine):
        op = abi.HYPERVISOR_sched_op, abi.SCHEDOP_watchdog, "<II"
        assert [call(*op, 0, 30) for _ in range(3)] == [1, 2, -ENOSPC]
        assert call(*op, 3, 30) == -EINVAL
        assert call(*op, 1, 0) == 0
        assert call(*op, 1, 30) == -EINVAL


class TestPhysmap:
    def add(self, space, idx, gfn):
        fields = (abi.DOMID_SELF, 0, space, idx, gfn)
        return call(abi.HYPERVISOR_memory_op, abi.XENMEM_add_to_physmap, "<HHIQQ", *fields)

    def test_the_page_mapped_replaces_what_was_there(self, machine):
        machine.shared_info_page.view[:4] = b"info"
        hw.mem(0x5000, 4096)[:] = bytes([0x33]) * 4096
        assert self.add(abi.XENMAPSPACE_shared_info, 0, 5) == 0
        assert bytes(hw.mem(0x5000, 8)) == b"info\0\0\0\0"
        hw.mem(0x5000, 1)[0] = 0x49
        assert bytes(machine.shared_info_page.view[:4]) == b"Info"

    def test_a_page_mapped_elsewhere_leaves_a_hole(self, machine):
        machine.shared_info_page.view[:4] = b"info"
        self.add(abi.XENMAPSPACE_shared_info, 0, 5)
        self.add(abi.XENMAPSPACE_shared_info, 0, 6)
        assert bytes(hw.mem(0x6000, 4)) == b"info"
        assert bytes(hw.mem(0x5000, 4)) == b"\xff\xff\xff\xff"
        assert machine.holes == {5}

    def test_a_page_of_xens_that_loses_its_place_keeps_its_content(self, machine):
        machine.shared_info_page.view[:4] = b"info"
        self.add(abi.XENMAPSPACE_shared_info, 0, 5)
        self.add(abi.XENMAPSPACE_grant_table, 0, 5)
        assert machine.shared_info_page.gfn is None
        assert bytes(machine.shared_info_page.view[:4]) == b"info"
        self.add(abi.XENMAPSPACE_shared_info, 0, 6)
        assert bytes(hw.mem(0x6000, 4)) == b"info"

    def test_mapping_a_grant_frame_grows_the_table_up_to_its_limit(self, machine):
        assert self.add(abi.XENMAPSPACE_grant_table, 3, 5) == 0
        assert len(machine.gnttab.frames) == 4
        assert self.add(abi.XENMAPSPACE_grant_table, machine.gnttab.max_frames, 6) == -EINVAL

    @pytest.mark.parametrize(("space", "idx", "gfn"), [(0, 1, 5), (9, 0, 5), (0, 0, 1 << 20)])
    def test_what_cannot_be_mapped_is_refused(self, machine, space, idx, gfn):
        assert self.add(space, idx, gfn) == -EINVAL

    def test_another_domain_is_refused(self, machine):
        fields = (7, 0, abi.XENMAPSPACE_shared_info, 0, 5)
        answer = call(abi.HYPERVISOR_memory_op, abi.XENMEM_add_to_physmap, "<HHIQQ", *fields)
        assert answer == -ESRCH


class TestHvmOp:
    def param(self, op, index, value=0):
        return call(abi.HYPERVISOR_hvm_op, op, "<HHIQ", abi.DOMID_SELF, 0, index, value)

    def test_get_param_gives_what_the_toolstack_set(self, machine):
        machine.params[abi.HVM_PARAM_STORE_PFN] = 0xABCDE
        assert self.param(abi.HVMOP_get_param, abi.HVM_PARAM_STORE_PFN) == 0
        assert hw.rd64(ARG + abi.XEN_HVM_PARAM_VALUE) == 0xABCDE

    def test_a_guest_may_set_its_callback_and_nothing_of_the_toolstacks(self, machine):
        assert self.param(abi.HVMOP_set_param, abi.HVM_PARAM_CALLBACK_IRQ, 1 << 56) == 0
        assert self.param(abi.HVMOP_set_param, abi.HVM_PARAM_STORE_PFN, 1) == -EPERM
        assert self.param(abi.HVMOP_get_param, 1000) == -EINVAL

    def test_mem_type_tells_ram_from_what_was_ballooned_out(self, machine):
        machine.holes.add(9)
        for gfn, kind in ((8, HVMMEM_ram_rw), (9, HVMMEM_mmio_dm), (1 << 30, HVMMEM_mmio_dm)):
            op = abi.HYPERVISOR_hvm_op, HVMOP_get_mem_type, "<HH4xQ"
            assert call(*op, abi.DOMID_SELF, 77, gfn) == 0
            assert hw.rd16(ARG + 2) == kind


def test_what_xen_does_not_have_is_enosys(machine):
    assert hw.hypercall(99, 0, 0) == -ENOSYS
    for nr in (12, 17, 20, 29, 32, 34):
        assert hw.hypercall(nr, 99, ARG) == -ENOSYS


def test_an_argument_outside_of_ram_is_efault(machine):
    assert hw.hypercall(abi.HYPERVISOR_sched_op, abi.SCHEDOP_poll, len(machine.ram) - 8) == -EFAULT
    assert hw.hypercall(abi.HYPERVISOR_event_channel_op, abi.EVTCHNOP_send, -4) == -EFAULT


def test_version_and_cpuid_name_the_same_xen(machine):
    assert hw.hypercall(abi.HYPERVISOR_xen_version, abi.XENVER_version, 0) == 4 << 16 | 17
    assert machine.cpuid(hw.xen() + 1)[0] == 4 << 16 | 17
    assert struct.pack("<3I", *machine.cpuid(hw.xen())[1:]) == b"XenVMMXenVMM"


def test_alloc_pages_gives_zeroed_pages_until_there_are_none():
    machine = Machine(region=(0x10000, 0x14000))
    hw.attach(machine)
    hw.mem(0x10000, 0x4000)[:] = bytes([0xFF]) * 0x4000
    assert [hw.alloc_pages(1), hw.alloc_pages(2)] == [0x10000, 0x11000]
    assert bytes(hw.mem(0x10000, 0x4000)) == bytes(0x3000) + bytes([0xFF]) * 0x1000
    with pytest.raises(MemoryError, match="2 pages wanted, 1"):
        hw.alloc_pages(2)


def test_pages_given_back_are_given_again_zeroed():
    hw.attach(Machine(region=(0x10000, 0x14000)))
    pages = hw.alloc_pages(2)
    hw.alloc_pages(2)
    hw.wr32(pages, 1)
    hw.free_pages(pages, 2)
    assert hw.alloc_pages(2) == pages
    assert hw.rd32(pages) == 0


@pytest.mark.parametrize(("addr", "n"), [(0x10000, 2), (0x11000, 1), (0x10004, 1), (0xF000, 1)])
def test_only_taken_pages_can_be_given_back(addr, n):
    hw.attach(Machine(region=(0x10000, 0x14000)))
    hw.alloc_pages(1)
    with pytest.raises(ValueError, match=r"no \d taken pages at"):
        hw.free_pages(addr, n)
