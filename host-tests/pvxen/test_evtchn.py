"""Event channels of the embedded Xen, by hypercall, and what a poll makes of them."""

import struct
from errno import EINVAL, EPERM, ESRCH

import pytest

import hw
from pvxen.machine import DOM0, Deadlock, Machine
from pvxen.public import EVTCHNOP_reset
from xenpv import abi

SECOND = 1_000_000_000
ARG = 0x1000
LIST = 0x2000


def op(cmd, fmt, *fields):
    hw.mem(ARG, 24)[:] = bytes(24)
    hw.mem(ARG, struct.calcsize(fmt))[:] = struct.pack(fmt, *fields)
    return hw.hypercall(abi.HYPERVISOR_event_channel_op, cmd, ARG)


def alloc_unbound(remote=DOM0):
    assert op(abi.EVTCHNOP_alloc_unbound, "<HHI", abi.DOMID_SELF, remote, 0) == 0
    return hw.rd32(ARG + 4)


def status(port):
    answer = op(abi.EVTCHNOP_status, "<HHI", abi.DOMID_SELF, 0, port)
    return answer or (hw.rd32(ARG + 8), hw.rd16(ARG + 16), hw.rd32(ARG + 20))


def poll(ports, until=0):
    hw.mem(LIST, 4 * len(ports))[:] = struct.pack(f"<{len(ports)}I", *ports)
    hw.mem(ARG, 24)[:] = struct.pack("<QIIQ", LIST, len(ports), 0, until)
    return hw.hypercall(abi.HYPERVISOR_sched_op, abi.SCHEDOP_poll, ARG)


def pending(port):
    return hw.rd64(hw.shared_info() + abi.SHARED_INFO_EVTCHN_PENDING + port // 64 * 8) >> port & 1


class Peer:
    """The other end of a channel, which answers every event with one."""

    def __init__(self, machine, answers=True):
        self.machine = machine
        self.heard = 0
        self.answers = answers
        self.port = alloc_unbound()
        self.far = machine.evtchn.bind_interdomain(DOM0, machine.domid, self.port)
        machine.evtchn.on(DOM0, self.far, self.step)

    def step(self):
        self.heard += 1
        if self.answers:
            self.machine.evtchn.send(DOM0, self.far)


def boot(**options):
    machine = Machine(**options)
    hw.attach(machine)
    hw.shared_info()
    return machine


@pytest.mark.parametrize("seed", range(5))
def test_an_event_reaches_the_peer_and_its_answer_ends_the_poll(seed):
    peer = Peer(boot(seed=seed))
    op(abi.EVTCHNOP_send, "<I", peer.port)
    assert poll([peer.port]) == 0
    assert peer.heard == 1
    assert pending(peer.port)


def test_a_pending_bit_ends_every_poll_until_it_is_cleared(machine):
    peer = Peer(machine, answers=False)
    machine.evtchn.send(DOM0, peer.far)
    poll([peer.port])
    poll([peer.port])
    field = hw.shared_info() + abi.SHARED_INFO_EVTCHN_PENDING
    assert hw.test_and_clear_bit(field, peer.port)
    with pytest.raises(Deadlock):
        poll([peer.port])


def test_a_poll_does_not_mind_a_mask_but_an_upcall_does(machine):
    peer = Peer(machine)
    mask = hw.shared_info() + abi.SHARED_INFO_EVTCHN_MASK
    hw.mem(mask, 1)[0] = 0xFF
    machine.evtchn.send(DOM0, peer.far)
    assert poll([peer.port]) == 0
    assert not machine.upcall_pending()
    assert op(abi.EVTCHNOP_unmask, "<I", peer.port) == 0
    assert machine.upcall_pending()
    assert hw.rd64(hw.shared_info() + 8) == 1
    assert hw.hypercall(abi.HYPERVISOR_sched_op, abi.SCHEDOP_block, 0) == 0


def test_the_first_event_of_a_dead_fifo_kernel_ends_all_later_polls_and_no_bit_is_set():
    machine = boot(events="fifo")
    peer = Peer(machine, answers=False)
    began = machine.clock.now
    poll([peer.port], began + SECOND)
    assert machine.clock.now - began >= SECOND
    machine.evtchn.send(DOM0, peer.far)
    poll([peer.port])
    poll([peer.port])
    assert not pending(peer.port)


def test_a_dead_event_ends_no_poll_but_the_peer_still_hears():
    machine = boot(events="dead")
    peer = Peer(machine)
    began = machine.clock.now
    op(abi.EVTCHNOP_send, "<I", peer.port)
    poll([peer.port], began + SECOND)
    assert machine.clock.now - began >= SECOND
    assert peer.heard == 1
    assert not pending(peer.port)


def test_status_follows_the_life_of_a_channel(machine):
    port = alloc_unbound()
    assert status(port) == (abi.EVTCHNSTAT_unbound, DOM0, 0)
    far = machine.evtchn.bind_interdomain(DOM0, machine.domid, port)
    assert status(port) == (abi.EVTCHNSTAT_interdomain, DOM0, far)
    machine.evtchn.close(DOM0, far)
    assert status(port) == (abi.EVTCHNSTAT_unbound, DOM0, 0)
    assert op(abi.EVTCHNOP_close, "<I", port) == 0
    assert status(port) == (abi.EVTCHNSTAT_closed, 0, 0)


def test_a_port_that_was_closed_is_given_again_without_what_was_pending(machine):
    peer = Peer(machine)
    machine.evtchn.send(DOM0, peer.far)
    op(abi.EVTCHNOP_close, "<I", peer.port)
    assert alloc_unbound() == peer.port
    assert not pending(peer.port)


def test_a_guest_can_bind_to_itself_and_the_one_who_binds_finds_an_event(machine):
    near = alloc_unbound(abi.DOMID_SELF)
    fields = (abi.DOMID_SELF, 0, near, 0)
    assert op(abi.EVTCHNOP_bind_interdomain, "<HHII", *fields) == 0
    far = hw.rd32(ARG + 8)
    assert pending(far)
    assert not pending(near)
    op(abi.EVTCHNOP_send, "<I", far)
    assert pending(near)


def test_sending_into_a_channel_that_nobody_bound_is_no_error(machine):
    assert op(abi.EVTCHNOP_send, "<I", alloc_unbound()) == 0


def test_what_is_not_a_port_is_einval(machine):
    assert op(abi.EVTCHNOP_send, "<I", 77) == -EINVAL
    assert op(abi.EVTCHNOP_close, "<I", 77) == -EINVAL
    assert op(abi.EVTCHNOP_unmask, "<I", 77) == -EINVAL
    assert op(abi.EVTCHNOP_status, "<HHI", abi.DOMID_SELF, 0, 5000) == -EINVAL
    assert poll([77]) == -EINVAL
    assert poll([0]) == -EINVAL
    assert poll([1] * 129) == -EINVAL


def test_a_channel_offered_to_another_domain_cannot_be_bound(machine):
    port = alloc_unbound(5)
    assert op(abi.EVTCHNOP_bind_interdomain, "<HHII", abi.DOMID_SELF, 0, port, 0) == -EINVAL


def test_a_guest_may_not_act_for_another_domain(machine):
    for domid, errno in ((DOM0, EPERM), (5, ESRCH)):
        assert op(abi.EVTCHNOP_alloc_unbound, "<HHI", domid, DOM0, 0) == -errno
        assert op(abi.EVTCHNOP_status, "<HHI", domid, 0, 1) == -errno
        assert op(EVTCHNOP_reset, "<H", domid) == -errno
