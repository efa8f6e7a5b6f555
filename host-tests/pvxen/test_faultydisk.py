"""A disk of the embedded Xen: as strict as Linux's backend, and each fault it can be asked for."""

import pytest
from blkback.front import (
    BARRIER,
    CLOSED,
    CLOSING,
    CONNECTED,
    EOPNOTSUPP,
    ERROR,
    FLUSH,
    INIT_WAIT,
    INITIALISED,
    INITIALISING,
    OKAY,
    PAGE,
    READ,
    SIZE,
    WRITE,
    Front,
    Xen,
)

from pvxen.crashedkernel import CrashedKernel
from pvxen.faults import UNUSED, Faults
from pvxen.faultydisk import FaultySink
from pvxen.guest import EmbeddedGuest
from pvxen.sink import Memory
from pvxen.toolstack import Toolstack
from xenpv import abi

MS = 1_000_000


class Faulty(Xen):
    """A domain with a disk that has faults, and a front end by hand."""

    def __init__(self, seed=0, **faults):
        self.xen = Toolstack(seed)
        domain = self.xen.create(size=4 << 20)
        disk = Memory(SIZE)
        self.fronts = [Front(self, domain, domain.disk("xvdb", disk, **faults), disk)]
        self.settle()


def faulty(seed=0, **faults):
    return Faulty(seed, **faults).fronts[0]


def reads(front, count):
    """The ids of so many reads, and the responses that came."""
    segments, _ = front.room(1)
    return [front.put(READ, 16 * i, segments) for i in range(count)], front.kick()


class TestStates:
    def test_initialising_is_not_heard_while_it_is_connected(self):
        front = faulty().connect()
        assert front.say(INITIALISING) == CONNECTED
        assert front.status(FLUSH) == OKAY

    def test_a_new_ring_is_not_looked_at_while_it_is_connected(self):
        front = faulty().connect()
        front.write("ring-ref", 500)
        assert front.say(INITIALISED) == CONNECTED
        assert front.status(FLUSH) == OKAY

    def test_closing_closed_initialising_takes_it_over_and_nothing_else(self):
        front = faulty().connect()
        assert [front.say(state) for state in (CLOSING, INITIALISING)] == [CLOSING, CLOSING]
        assert [front.say(state) for state in (CLOSED, INITIALISING)] == [CLOSED, INIT_WAIT]
        assert front.mapped() == 0
        assert front.connect().status(FLUSH) == OKAY

    @pytest.mark.parametrize(
        ("fault", "states"),
        [
            ("stuck_closing", [CLOSING, CLOSING, CLOSING]),
            ("ignores_closing", [CONNECTED, CONNECTED, CONNECTED]),
            ("no_init_wait", [CLOSING, CLOSED, CLOSED]),
        ],
    )
    def test_it_can_be_asked_not_to_let_go(self, fault, states):
        front = faulty(**{fault: True}).connect()
        assert [front.say(state) for state in (CLOSING, CLOSED, INITIALISING)] == states

    def test_it_can_be_asked_never_to_connect(self):
        front = faulty(never_connects=True)
        front.make_ring()
        assert front.say(INITIALISED) == INIT_WAIT

    @pytest.mark.parametrize("plain", [True, False])
    def test_plain_is_one_that_offers_nothing(self, plain):
        front = faulty(plain=plain).connect()
        keys = ("max-ring-page-order", "feature-persistent", "feature-max-indirect-segments")
        assert [front.back(key, "none") == "none" for key in keys] == [plain] * 3

    def test_it_dies(self):
        front = faulty(dies=1).connect()
        ids, responses = reads(front, 3)
        assert responses == [(ids[0], READ, OKAY)]
        assert front.device.states == [INIT_WAIT, CONNECTED, CLOSING, CLOSED]
        assert front.mapped() == 0
        assert front.say(INITIALISING) == INIT_WAIT


class TestData:
    def test_read_only(self):
        front = faulty(read_only=True).connect()
        assert front.back("info") == str(abi.VDISK_READONLY)
        assert front.status(WRITE, 0, front.data(bytes(PAGE))) == ERROR

    def test_no_flush(self):
        front = faulty(no_flush=True).connect()
        assert front.back("feature-flush-cache", "none") == "none"
        assert front.back("feature-barrier", "none") == "none"
        assert [front.status(op) for op in (FLUSH, BARRIER)] == [EOPNOTSUPP] * 2

    def test_sectors_of_another_size(self):
        assert faulty(sector_size=4096).connect().back("sector-size") == "4096"

    def test_beyond_so_many_bytes_only_what_was_written_takes_data(self):
        sink = FaultySink(Memory(SIZE), Faults(error_after=2 * PAGE))
        data = [memoryview(b"x" * PAGE)]
        sink.write(0, data)
        sink.write(5 * PAGE, data)
        with pytest.raises(OSError, match="no space left"):
            sink.write(PAGE, data)
        sink.write(5 * PAGE, data)


class TestResponses:
    @pytest.mark.parametrize(
        ("fault", "response"),
        [
            ("bad_id", (2 + UNUSED, READ, OKAY)),
            ("bad_status", (2, READ, -77)),
            ("fails", (2, READ, ERROR)),
            ("wrong_operation", (2, WRITE, OKAY)),
        ],
    )
    def test_one_is_wrong(self, fault, response):
        assert reads(faulty(**{fault: 1}).connect(), 3)[1] == [
            (1, READ, OKAY),
            response,
            (3, READ, OKAY),
        ]

    def test_one_comes_twice(self):
        front = faulty(id_twice=0).connect()
        # The second stands where a response to the next request is looked for.
        front.put(READ, 0, front.room(1)[0])
        front.ring.push()
        front.put(READ, 0, front.room(1)[0])
        front.machine.evtchn.send(front.domain.domid, front.port)
        front.xen.settle()
        assert front.responses() == [(1, READ, OKAY)] * 2

    def test_more_are_announced_than_the_ring_has_entries(self):
        front = faulty(overflow=1).connect()
        front.put(FLUSH)
        front.kick()
        assert front.ring.memory.rd32(abi.SRING_RSP_PROD) == 1
        front.put(FLUSH)
        front.ring.push()
        front.machine.evtchn.send(front.domain.domid, front.port)
        front.xen.settle()
        assert front.ring.memory.rd32(abi.SRING_RSP_PROD) > 2 + front.ring.slots

    def test_none_comes_and_the_frames_stay_mapped_until_the_end(self):
        front = faulty(never_answers=1).connect()
        assert reads(front, 2)[1] == [(1, READ, OKAY)]
        assert front.mapped() == 2  # the ring's, and the second request's
        assert front.say(CLOSED) == CLOSED
        assert front.mapped() == 0

    def test_their_order_is_drawn_by_the_seed_and_none_is_lost(self):
        def order(seed):
            front = faulty(seed, reorder=True).connect()
            reads(front, 16)
            front.xen.rest()
            return [number for number, _, _ in front.responses()]

        assert sorted(order(1)) == list(range(1, 17))
        assert order(1) == order(1)
        assert order(1) != order(2)

    def test_they_come_late(self):
        front = faulty(latency=MS).connect()
        assert reads(front, 1)[1] == []
        front.xen.rest()
        assert front.responses() == [(1, READ, OKAY)]

    def test_none_comes_late_into_a_ring_that_was_let_go(self):
        front = faulty(latency=MS).connect()
        reads(front, 1)
        assert front.say(CLOSED) == CLOSED
        front.xen.rest()
        assert front.responses() == []


def test_a_write_that_the_crashed_kernel_left_in_the_ring_is_done_at_the_next_event():
    guest = EmbeddedGuest()
    disk = guest.disk("xvdb", Memory(SIZE))
    kernel = CrashedKernel(guest)
    kernel.connect(disk, start=0xFFFFFFFF)
    kernel.write_in_flight(disk, 7, b"\xee" * 512)
    assert not disk.seen
    port = int(guest.store.read(f"{disk.front}/event-channel"))
    guest.machine.evtchn.send(1, port)
    guest.settle()
    assert disk.sink.data[7 * 512 : 8 * 512] == b"\xee" * 512
