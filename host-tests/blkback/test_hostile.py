"""Front ends that mean harm: they lose their own disk, and nobody else notices."""

import random
import struct

import pytest
from blkback.front import (
    CLOSED,
    CLOSING,
    CONNECTED,
    ERROR,
    FLUSH,
    INIT_WAIT,
    INITIALISED,
    INITIALISING,
    OKAY,
    PAGE,
    READ,
    WRITE,
    Xen,
)

from pvdump.blkback.instance import State
from xenpv import abi
from xenpv.block.blkif import X86_32, X86_64

SECOND = 1_000_000_000


def corrupt(front, req_prod):
    front.ring.memory.wr32(abi.SRING_REQ_PROD, req_prod)
    front.machine.evtchn.send(front.domain.domid, front.port)
    front.xen.settle()


class TestCorruptRing:
    @pytest.mark.parametrize("req_prod", [33, 1 << 31, 0xFFFFFFFF, 0x80000020])
    def test_it_is_disconnected_with_the_reason_in_its_error_node(self, req_prod):
        front = Xen().fronts[0].connect()
        instance = front.device.instance
        corrupt(front, req_prod)
        assert front.back_state() == CLOSING
        assert f"req_prod 0x{req_prod:x}" in front.error()
        assert instance.state is State.DISCONNECTED
        assert front.mapped() == 0

    def test_no_entry_of_it_is_done(self):
        front = Xen().fronts[0].connect()
        front.put(WRITE, 0, front.data(bytes(PAGE)))
        corrupt(front, 100)
        assert front.disk.ios == []

    def test_it_may_connect_again(self):
        front = Xen().fronts[0].connect()
        corrupt(front, 100)
        assert front.say(CLOSED) == CLOSED
        assert front.say(INITIALISING) == INIT_WAIT
        assert front.connect().status(FLUSH) == OKAY

    def test_the_same_ring_is_not_taken_again(self):
        front = Xen().fronts[0].connect()
        corrupt(front, 100)
        assert front.say(INITIALISED) == CLOSING

    @pytest.mark.parametrize("start", [0, 0xFFFFFFF0])
    def test_indexes_may_begin_anywhere_and_wrap(self, start):
        front = Xen().fronts[0]
        front.make_ring()
        ring = front.ring
        for offset, value in ((0, 0), (4, 1), (8, 0), (12, 1)):
            ring.memory.wr32(offset, (start + value) & 0xFFFFFFFF)
        ring._req_prod = ring._rsp_cons = start
        assert front.say(INITIALISED) == CONNECTED
        for _ in range(40):
            assert front.status(FLUSH) == OKAY


def test_entries_that_change_while_they_are_read_are_read_once():
    # The copy that was checked is the one that is done.
    front = Xen().fronts[0].connect()
    taken = []
    ring = front.device.instance._ring
    take = ring.take

    def racing():
        entry = take()
        if entry is not None:
            taken.append(entry)
            front.ring.memory.view[64 : 64 + 112] = b"\xff" * 112
        return entry

    ring.take = racing
    assert front.status(WRITE, 0, front.data(b"\1" * PAGE)) == OKAY
    assert len(taken) == 1
    assert front.disk.data[:PAGE] == b"\1" * PAGE


def test_a_grant_that_is_taken_back_under_use_changes_nothing_yet():
    front = Xen().fronts[0].connect(persistent=True)
    segments = front.data(b"\2" * PAGE, False)
    assert front.status(WRITE, 0, segments) == OKAY
    front.machine.gnttab.set_entry(segments[0][0], 0, 0, 0)
    assert front.status(WRITE, 8, segments) == OKAY
    assert front.disk.data[PAGE : 2 * PAGE] == b"\2" * PAGE


def test_a_grant_that_was_taken_back_before_is_refused():
    front = Xen().fronts[0].connect()
    segments = front.data(b"\2" * PAGE)
    front.machine.gnttab.set_entry(segments[0][0], 0, 0, 0)
    assert front.status(WRITE, 0, segments) == ERROR


def test_a_channel_that_the_front_end_closes_leaves_the_backend_in_order():
    front = Xen().fronts[0].connect()
    front.put(FLUSH)
    front.ring.push()
    front.machine.evtchn.send(front.domain.domid, front.port)
    front.machine.evtchn.close(front.domain.domid, front.port)
    front.xen.settle()
    assert front.say(CLOSED) == CLOSED


def test_events_in_a_storm_cost_a_look_each_at_most():
    front = Xen().fronts[0].connect()
    for _ in range(1000):
        front.machine.evtchn.send(front.domain.domid, front.port)
    front.xen.settle()
    assert front.status(FLUSH) == OKAY


@pytest.mark.parametrize("layout", [X86_64, X86_32], ids=lambda layout: layout.protocol)
@pytest.mark.parametrize("seed", range(40))
def test_entries_of_any_bytes_are_answered_each_or_end_the_connection(layout, seed):
    draw = random.Random(seed)
    xen = Xen(2, seed=seed)
    front, other = xen.fronts
    front.connect(layout=layout, persistent=draw.random() < 0.5)
    other.connect()
    before = bytes(other.machine.ram), bytes(other.disk.data)
    for _ in range(30):
        count = draw.randint(1, front.ring.free())
        for _ in range(count):
            at = front.ring.slot()
            entry = bytearray(draw.randbytes(layout.stride))
            entry[0] = draw.choice([0, 1, 2, 3, 5, 6, entry[0]])
            if draw.random() < 0.7:
                entry[1] = draw.randint(0, 13)
            struct.pack_into("<Q", entry, layout.segments - 8, draw.randrange(4096))
            for i in range(11):
                where = layout.segments + 8 * i
                struct.pack_into(
                    "<IBB", entry, where, draw.randrange(600), *draw.choices(range(9), k=2)
                )
            front.ring.memory.view[at : at + layout.stride] = entry
        assert len(front.kick()) == count
    assert front.status(FLUSH) == OKAY
    assert (bytes(other.machine.ram), bytes(other.disk.data)) == before


def test_connections_in_a_loop_are_made_ten_times_a_second_at_most():
    xen = Xen()
    front = xen.fronts[0]
    made = []
    bind = xen.back.bind
    xen.back.bind = lambda *which: (made.append(which), bind(*which))[1]
    front.make_ring()
    for _ in range(100):
        for state in (INITIALISED, CLOSED, INITIALISING):
            front.write("state", state)
            xen.settle()
    assert len(made) == 1
    assert front.say(INITIALISED) == CONNECTED
    assert len(made) == 2


class TestLog:
    def test_errors_of_one_front_end_are_logged_once_a_second_with_how_many_were_left_out(self):
        xen = Xen()
        front = xen.fronts[0].connect()
        clock = xen.xen.clock
        clock.now = 0
        for _ in range(100):
            front.status(99)
        assert len(xen.back.log) == 1
        clock.advance(clock.now + SECOND)
        front.status(99)
        assert xen.back.log[1].endswith("(99 more were left out)")
        assert front.device.counts.errors == 101

    def test_a_front_end_that_fails_to_connect_in_a_loop_is_logged_once_a_second(self):
        xen = Xen()
        front = xen.fronts[0]
        front.write("ring-ref", "x")
        began = xen.xen.clock.now
        for _ in range(50):
            front.say(INITIALISED)
            front.say(CLOSED)
            front.say(INITIALISING)
        passed = (xen.xen.clock.now - began) / SECOND
        assert passed > 10
        assert len(xen.back.log) <= passed + 1

    def test_what_a_front_end_wrote_is_logged_in_one_line(self):
        xen = Xen()
        front = xen.fronts[0]
        front.make_ring()
        front.write("protocol", "x\nroot login accepted\x1b[2J")
        front.say(INITIALISED)
        assert "\n" not in xen.back.log[0]
        assert "\x1b" not in xen.back.log[0]


class TestSixteen:
    """Sixteen domains, one of which is hostile."""

    def work(self, front, seed):
        """A round of a front end that behaves. Returns what it found wrong."""
        draw = random.Random(seed)
        data = draw.randbytes(4 * PAGE)
        sector = 8 * draw.randrange(200)
        front.status(WRITE, sector, front.data(data))
        segments, memory = front.room(4)
        front.status(READ, sector, segments)
        return memory != data

    @pytest.mark.parametrize("seed", [0, 1, 2, 3])
    def test_one_that_corrupts_its_ring_in_a_loop_hurts_no_other(self, seed):
        xen = Xen(16, seed=seed)
        hostile, *others = xen.fronts
        for front in others:
            front.connect()
        for i in range(5):
            hostile.connect()
            corrupt(hostile, 1000)
            hostile.say(CLOSED)
            hostile.say(INITIALISING)
            assert not any(self.work(front, i) for front in others)
        assert all(front.back_state() == CONNECTED for front in others)

    @pytest.mark.parametrize("seed", [0, 1, 2, 3])
    def test_one_whose_disk_stalls_holds_up_no_other(self, seed):
        xen = Xen(16, seed=seed)
        stalled, *others = [front.connect() for front in xen.fronts]
        stalled.disk.stalled = True
        stalled.put(WRITE, 0, stalled.data(bytes(PAGE)))
        stalled.kick()
        assert not any(self.work(front, i) for i in range(3) for front in others)

    def test_one_with_a_full_ring_always_takes_turns_with_the_others(self):
        xen = Xen(2)
        busy, other = [front.connect() for front in xen.fronts]
        segment = busy.data(bytes(PAGE))
        order = []
        for front in (busy, other):
            flush = front.disk.flush
            front.disk.flush = lambda flush=flush, front=front: (order.append(front), flush())
        refill = busy.disk.write

        def write_and_refill(offset, buffers):
            # As a guest on another CPU would: there is always one more.
            refill(offset, buffers)
            order.append(busy)
            if len(order) < 200:
                busy.responses()
                busy.put(WRITE, 0, segment)
                busy.ring.push()

        busy.disk.write = write_and_refill
        busy.put(WRITE, 0, segment)
        busy.ring.push()
        busy.machine.evtchn.send(busy.domain.domid, busy.port)
        other.put(FLUSH)
        other.kick()
        assert order.index(other) <= 2 * busy.ring.slots
