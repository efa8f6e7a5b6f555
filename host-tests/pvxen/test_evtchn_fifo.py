"""The FIFO interface of the embedded Xen: words, queues, and what a dead kernel leaves of them."""

import struct
from errno import EINVAL, ENOENT, ENOSPC, ENOSYS, EOPNOTSUPP

import pytest

import hw
from pvxen.crashedkernel import CrashedKernel
from pvxen.guest import EmbeddedGuest
from pvxen.machine import DOM0, Deadlock, Machine
from pvxen.public import (
    EVTCHN_FIFO_LINKED,
    EVTCHN_FIFO_MASKED,
    EVTCHN_FIFO_PENDING,
    EVTCHNOP_expand_array,
    EVTCHNOP_init_control,
    EVTCHNOP_reset,
    EVTCHNOP_set_priority,
    VCPUOP_register_vcpu_info,
)
from xenpv import abi
from xenpv.evtchn import EventChannels
from xenpv.hypercall import Hypercalls

SECOND = 1_000_000_000
ARG = 0x1000
LIST = 0x2000
CONTROL = 0x10000
ARRAY = 0x11000
HEAD = CONTROL + 8
PENDING, MASKED, LINKED = (
    1 << bit for bit in (EVTCHN_FIFO_PENDING, EVTCHN_FIFO_MASKED, EVTCHN_FIFO_LINKED)
)
DEFAULT = 7  # priority


def op(cmd, fmt, *fields):
    hw.mem(ARG, 24)[:] = bytes(24)
    hw.mem(ARG, struct.calcsize(fmt))[:] = struct.pack(fmt, *fields)
    return hw.hypercall(abi.HYPERVISOR_event_channel_op, cmd, ARG)


def init_control(gfn=CONTROL // 4096, offset=0, vcpu=0):
    return op(EVTCHNOP_init_control, "<QII", gfn, offset, vcpu)


def expand_array(gfn=ARRAY // 4096):
    return op(EVTCHNOP_expand_array, "<Q", gfn)


def poll(port, until=0):
    hw.wr32(LIST, port)
    hw.mem(ARG, 24)[:] = struct.pack("<QIIQ", LIST, 1, 0, until)
    return hw.hypercall(abi.HYPERVISOR_sched_op, abi.SCHEDOP_poll, ARG)


def word(port):
    return hw.rd32(ARRAY + 4 * port)


def two_level_pending(port):
    byte = hw.shared_info() + abi.SHARED_INFO_EVTCHN_PENDING + port // 8
    return hw.mem(byte, 1)[0] >> port % 8 & 1


@pytest.fixture
def peers(machine):
    """Domain 0's ends of three channels, the guest's being 1, 2 and 3."""
    hw.shared_info()
    return {
        port: machine.evtchn.bind_interdomain(DOM0, 1, machine.evtchn.alloc_unbound(1, DOM0))
        for port in (1, 2, 3)
    }


@pytest.fixture
def send(machine, peers):
    return lambda port: machine.evtchn.send(DOM0, peers[port])


@pytest.fixture
def fifo(machine, peers):
    assert init_control() == 0
    assert expand_array() == 0


class TestSetUp:
    def test_init_control_tells_the_size_of_a_link(self, machine):
        assert init_control() == 0
        assert hw.mem(ARG + 16, 1)[0] == 17

    @pytest.mark.parametrize(
        ("arguments", "errno"),
        [
            ({"vcpu": 1}, ENOENT),
            ({"offset": 4096 - 64}, EINVAL),
            ({"offset": 4}, EINVAL),
            ({"gfn": 1 << 30}, EINVAL),
        ],
    )
    def test_what_xen_refuses_leaves_the_2_level_interface(self, machine, arguments, errno):
        assert init_control(**arguments) == -errno
        assert machine.events.name == "2l"

    def test_a_vcpu_has_one_control_block(self, fifo):
        assert init_control() == -EINVAL

    def test_the_array_grows_only_under_fifo_and_only_so_far(self, machine):
        assert expand_array() == -EOPNOTSUPP
        init_control()
        assert expand_array(1 << 30) == -EINVAL
        assert [expand_array() for _ in range(129)] == [0] * 128 + [-ENOSPC]

    def test_priorities_are_0_to_15_and_only_under_fifo(self, machine, peers):
        assert op(EVTCHNOP_set_priority, "<II", 1, 3) == -ENOSYS
        init_control()
        assert op(EVTCHNOP_set_priority, "<II", 1, 15) == 0
        assert op(EVTCHNOP_set_priority, "<II", 1, 16) == -EINVAL
        assert op(EVTCHNOP_set_priority, "<II", 99, 0) == -EINVAL


class TestEvents:
    def test_an_event_is_linked_at_the_head_of_its_queue_and_upcalls(self, machine, fifo, send):
        send(2)
        assert word(2) == PENDING | LINKED
        assert hw.rd32(HEAD + 4 * DEFAULT) == 2
        assert hw.rd32(CONTROL) == 1 << DEFAULT
        assert machine.upcall_pending()
        assert not two_level_pending(2)

    def test_later_events_are_linked_behind_one_another(self, fifo, send):
        for port in (3, 1, 2):
            send(port)
        assert hw.rd32(HEAD + 4 * DEFAULT) == 3
        assert [word(port) & 0x1FFFF for port in (3, 1, 2)] == [1, 2, 0]

    def test_an_event_that_is_linked_already_is_not_linked_twice(self, fifo, send):
        for port in (3, 1, 3):
            send(port)
        assert [word(port) & 0x1FFFF for port in (3, 1)] == [1, 0]

    def test_a_queue_that_the_guest_emptied_begins_anew(self, fifo, send):
        send(1)
        hw.wr32(ARRAY + 4, 0)
        hw.wr32(HEAD + 4 * DEFAULT, 0)
        hw.wr32(CONTROL, 0)
        send(2)
        assert hw.rd32(HEAD + 4 * DEFAULT) == 2
        assert hw.rd32(CONTROL) == 1 << DEFAULT

    def test_a_priority_is_a_queue_of_its_own(self, fifo, send):
        op(EVTCHNOP_set_priority, "<II", 2, 0)
        send(1)
        send(2)
        assert (hw.rd32(HEAD), hw.rd32(HEAD + 4 * DEFAULT)) == (2, 1)
        assert hw.rd32(CONTROL) == 1 << DEFAULT | 1

    def test_a_masked_event_is_pending_and_linked_once_unmasked(self, machine, fifo, send):
        hw.wr32(ARRAY + 4, MASKED)
        send(1)
        assert word(1) == MASKED | PENDING
        assert not machine.upcall_pending()
        assert op(abi.EVTCHNOP_unmask, "<I", 1) == 0
        assert word(1) == PENDING | LINKED
        assert machine.upcall_pending()

    def test_what_was_pending_before_is_raised_when_its_word_is_there(self, machine, peers, send):
        send(1)
        init_control()
        assert machine.events.word(1) is None
        expand_array()
        assert word(1) == PENDING | LINKED

    def test_a_linked_port_is_not_given_again_once_closed(self, machine, fifo, send):
        send(2)
        op(abi.EVTCHNOP_close, "<I", 2)
        assert not word(2) & PENDING
        assert machine.evtchn.alloc_unbound(1, DOM0) == 4
        hw.wr32(ARRAY + 8, 0)
        assert machine.evtchn.alloc_unbound(1, DOM0) == 2

    def test_more_ports_than_the_2_level_interface_has(self, machine, fifo):
        assert machine.evtchn.limit(1) == 1 << 17
        assert op(abi.EVTCHNOP_status, "<HHI", abi.DOMID_SELF, 0, 5000) == 0


class TestPoll:
    def test_it_ends_with_a_new_event_masked_or_not(self, machine, fifo, send):
        hw.wr32(ARRAY + 4, MASKED)
        machine.clock.after(SECOND, lambda: send(1))
        assert poll(1) == 0
        assert word(1) == MASKED | PENDING

    def test_of_one_port_minds_no_other(self, machine, fifo, send):
        machine.clock.after(SECOND, lambda: send(2))
        with pytest.raises(Deadlock):
            poll(1)

    def test_of_a_port_whose_word_nobody_clears_ends_at_once_ever_after(self, fifo, send):
        send(1)
        assert [poll(1), poll(1)] == [0, 0]

    def test_of_a_port_beyond_the_array_never_ends(self, machine, peers, send):
        init_control()
        machine.clock.after(SECOND, lambda: send(1))
        with pytest.raises(Deadlock, match="events: fifo"):
            poll(1)


@pytest.mark.parametrize("count", [0, 2])
def test_a_poll_on_none_or_several_ends_with_any_new_event_as_in_xen(machine, peers, send, count):
    machine.clock.after(SECOND, lambda: send(3))
    hw.mem(LIST, 8)[:] = struct.pack("<II", 1, 2)
    hw.mem(ARG, 24)[:] = struct.pack("<QIIQ", LIST, count, 0, 0)
    assert hw.hypercall(abi.HYPERVISOR_sched_op, abi.SCHEDOP_poll, ARG) == 0


def test_a_driver_that_sleeps_does_so_for_all_its_time(machine, peers, send):
    began = machine.clock.now
    for second in (1, 2, 3):
        machine.clock.after(second * SECOND, lambda port=second: send(port))
    Hypercalls().sleep(10 * SECOND)
    assert machine.clock.now - began >= 10 * SECOND


class TestReset:
    def test_it_closes_every_port_and_the_interface_is_2_level(self, machine, fifo, send):
        assert op(EVTCHNOP_reset, "<H", abi.DOMID_SELF) == 0
        assert machine.evtchn.of(1) == []
        assert machine.events.name == "2l"
        assert not init_control()

    def test_the_stores_and_the_consoles_ports_die_with_it(self):
        guest = EmbeddedGuest()
        assert op(EVTCHNOP_reset, "<H", abi.DOMID_SELF) == 0
        store = guest.machine.params[abi.HVM_PARAM_STORE_EVTCHN]
        assert op(abi.EVTCHNOP_send, "<I", store) == -EINVAL
        assert guest.machine.evtchn.port(DOM0, guest.ring.port).state == abi.EVTCHNSTAT_unbound


class TestVcpuInfo:
    def register(self, gfn=0x20, offset=64, vcpu=0):
        hw.mem(ARG, 16)[:] = struct.pack("<QII", gfn, offset, 0)
        return hw.hypercall(abi.HYPERVISOR_vcpu_op, VCPUOP_register_vcpu_info, vcpu, ARG)

    def test_upcalls_go_where_the_guest_registered_it(self, machine, peers, send):
        assert self.register() == 0
        at = 0x20000 + 64
        assert (hw.mem(at, 1)[0], hw.rd64(at + 8)) == (1, 2**64 - 1)
        hw.mem(at, 16)[:] = bytes(16)
        send(1)
        assert (hw.mem(at, 1)[0], hw.rd64(at + 8)) == (1, 1)
        assert hw.rd64(hw.shared_info()) == 0

    def test_it_is_registered_once_and_in_ram(self, machine):
        assert self.register(vcpu=1) == -ENOENT
        assert self.register(gfn=1 << 30) == -EINVAL
        assert self.register(offset=4096 - 32) == -EINVAL
        assert self.register() == 0
        assert self.register() == -EINVAL


class TestACrashedKernelsChoice:
    def heard(self, **options):
        """What the driver finds out about the event bits."""
        hw.attach(Machine(**options))
        return EventChannels(Hypercalls()).shows_events()

    def test_the_driver_finds_out_whether_bits_are_alive(self):
        found = {events: self.heard(events=events) for events in ("2l", "fifo", "dead")}
        assert found == {"2l": True, "fifo": False, "dead": False}

    def test_one_that_used_fifo_hears_by_its_own_words_and_its_successor_does_not(self):
        guest = EmbeddedGuest()
        crashed = CrashedKernel(guest)
        crashed.use_fifo()
        port = crashed.alloc_unbound()
        far = guest.machine.evtchn.bind_interdomain(DOM0, 1, port)
        guest.machine.evtchn.send(DOM0, far)
        assert guest.machine.events.word(port) == PENDING | LINKED
        assert not EventChannels(Hypercalls()).shows_events()

    def test_what_is_none_of_the_three_is_refused(self):
        with pytest.raises(ValueError, match='"2l", "fifo" or "dead"'):
            Machine(events="none")
