"""The block backend of the embedded machine: states, data, and each fault it can be asked for."""

import struct

import pytest

from pvdump.xen.blkring import SLOTS
from pvdump.xen.domain import vdev
from pvdump.xen.earlier import EarlierKernel
from pvdump.xen.guest import Guest
from pvdump.xen.sink import File, Memory
from xenpv import abi

READ, WRITE, FLUSH = abi.BLKIF_OP_READ, abi.BLKIF_OP_WRITE, abi.BLKIF_OP_FLUSH_DISKCACHE
OKAY, ERROR, EOPNOTSUPP = 0, -1, -2
INITIALISING, INIT_WAIT, INITIALISED, CONNECTED, CLOSING, CLOSED = 1, 2, 3, 4, 5, 6
SIZE = 1 << 20


class Front:
    """A front end by hand: a ring page, and a data page for each request."""

    def __init__(self, seed=0, sink=None, **faults):
        self.guest = Guest(seed=seed)
        self.kernel = EarlierKernel(self.guest)
        self.sink = sink or Memory(bytes(range(256)) * (SIZE // 256))
        self.disk = self.guest.disk("xvdb", self.sink, **faults)
        self.ring = self.port = None
        self.prod = 0

    def connect(self):
        self.kernel.connect(self.disk)
        self.ring = self.guest.machine.page(self.kernel.rings[self.disk.path])
        self.port = int(self.guest.store.read(f"{self.disk.front}/event-channel"))
        return self

    def say(self, state):
        self.guest.store.write(f"{self.disk.front}/state", state)
        self.guest.settle()
        return self.disk.state

    def put(self, operation, sector=0, data=b"", segments=None, number=None):
        """Write a request of one page. Returns its data page."""
        gfn = self.kernel.page()
        page = self.guest.machine.page(gfn)
        page[: len(data)] = data
        if segments is None:
            segments = [
                (self.kernel.grant(gfn, operation == WRITE), 0, max(len(data), 512) // 512 - 1)
            ]
        at = 64 + self.prod % SLOTS * 112
        number = 1000 + self.prod if number is None else number
        struct.pack_into("<BBH4xQQ", self.ring, at, operation, len(segments), 0, number, sector)
        for i, segment in enumerate(segments[:11]):
            struct.pack_into("<IBB", self.ring, at + 24 + 8 * i, *segment)
        self.prod += 1
        return page

    def kick(self):
        struct.pack_into("<I", self.ring, 0, self.prod)
        self.guest.machine.evtchn.send(1, self.port)
        self.guest.settle()
        return self.responses()

    def rsp_prod(self):
        return struct.unpack_from("<I", self.ring, 8)[0]

    def responses(self):
        """(id, operation, status) of all responses so far."""
        slots = [64 + i % SLOTS * 112 for i in range(min(self.rsp_prod(), SLOTS))]
        return [struct.unpack_from("<QBxh", self.ring, at) for at in slots]

    def one(self, *args, **kwargs):
        page = self.put(*args, **kwargs)
        return self.kick()[-1], page


class TestStates:
    def test_it_waits_for_the_front_end_in_init_wait(self):
        assert Front().disk.states == [INIT_WAIT]

    def test_it_connects_to_a_ring_that_was_granted_and_says_what_it_is(self):
        front = Front().connect()
        assert front.disk.state == CONNECTED
        node = front.disk.path
        keys = ("sectors", "sector-size", "info", "feature-flush-cache")
        assert [front.guest.store.read(f"{node}/{key}") for key in keys] == [
            "2048",
            "512",
            "0",
            "1",
        ]

    def test_initialising_means_nothing_to_it_while_it_is_connected(self):
        front = Front().connect()
        assert front.say(INITIALISING) == CONNECTED

    def test_a_new_ring_means_nothing_to_it_while_it_is_connected(self):
        front = Front().connect()
        front.guest.store.write(f"{front.disk.front}/ring-ref", 500)
        assert front.say(INITIALISED) == CONNECTED
        assert front.one(FLUSH, segments=[])[0] == (1000, FLUSH, OKAY)

    def test_closing_closed_initialising_takes_it_over(self):
        front = Front().connect()
        assert [front.say(s) for s in (CLOSING, CLOSED, INITIALISING)] == [
            CLOSING,
            CLOSED,
            INIT_WAIT,
        ]
        assert front.guest.machine.gnttab.mappings == []
        front.connect()
        assert front.disk.state == CONNECTED

    def test_a_node_that_is_gone_is_let_go(self):
        front = Front().connect()
        front.guest.store.rm(front.disk.front)
        front.guest.settle()
        assert front.guest.machine.gnttab.mappings == []

    @pytest.mark.parametrize(
        ("key", "value"),
        [("ring-ref", 400), ("ring-ref", "x"), ("event-channel", 99), ("protocol", "arm")],
    )
    def test_a_ring_it_cannot_use_is_fatal_and_the_reason_stands_in_the_store(self, key, value):
        front = Front()
        for name, good in (("ring-ref", front.kernel.grant(40)), ("event-channel", 1)):
            front.guest.store.write(f"{front.disk.front}/{name}", good)
        front.guest.store.write(f"{front.disk.front}/{key}", value)
        assert front.say(INITIALISED) == CLOSING
        error = f"/local/domain/0/error/backend/vbd/1/{vdev('xvdb')}/error"
        assert front.guest.store.read(error) == front.disk.fatal

    def test_a_ring_page_order_even_0_makes_it_look_for_ring_ref0(self):
        front = Front()
        front.guest.store.write(f"{front.disk.front}/ring-page-order", 0)
        with pytest.raises(ValueError, match="state 5"):
            front.connect()
        assert "ENOENT" in front.disk.fatal

    @pytest.mark.parametrize(
        ("fault", "states"),
        [
            ("stuck_closing", [CLOSING, CLOSING, CLOSING]),
            ("ignores_closing", [CONNECTED, CONNECTED, CONNECTED]),
            ("no_init_wait", [CLOSING, CLOSED, CLOSED]),
        ],
    )
    def test_it_can_be_asked_not_to_let_go(self, fault, states):
        front = Front(**{fault: True}).connect()
        assert [front.say(s) for s in (CLOSING, CLOSED, INITIALISING)] == states

    def test_it_can_be_asked_never_to_connect(self):
        front = Front(never_connects=True)
        assert front.say(INITIALISED) == INIT_WAIT


class TestData:
    def test_a_write_lands_on_its_sectors(self):
        front = Front().connect()
        response, _ = front.one(WRITE, 3, b"\xee" * 1024)
        assert response == (1000, WRITE, OKAY)
        assert front.sink.data[3 * 512 : 5 * 512] == b"\xee" * 1024
        assert front.sink.data.count(b"\xee" * 2) == 512

    def test_a_read_fills_the_page(self):
        front = Front().connect()
        front.sink.data[512:1024] = b"\xab" * 512
        response, page = front.one(READ, 1)
        assert response == (1000, READ, OKAY)
        assert bytes(page[:513]) == b"\xab" * 512 + b"\0"

    def test_segments_follow_each_other_on_the_disk(self):
        front = Front().connect()
        gfns = [front.kernel.page() for _ in range(3)]
        for i, gfn in enumerate(gfns):
            front.guest.machine.page(gfn)[:] = bytes([0xC0 + i]) * 4096
        segments = [
            (front.kernel.grant(gfn), *part)
            for gfn, part in zip(gfns, ((6, 7), (0, 7), (0, 0)), strict=True)
        ]
        front.one(WRITE, 0, segments=segments)
        want = b"\xc0" * 1024 + b"\xc1" * 4096 + b"\xc2" * 512
        assert front.sink.data[: len(want) + 1] == want + bytes([len(want) % 256])

    def test_flush_reaches_the_sink(self):
        front = Front().connect()
        assert front.one(FLUSH, segments=[])[0] == (1000, FLUSH, OKAY)
        assert front.sink.flushes == 1

    def test_a_sparse_file_can_be_the_disk(self, tmp_path):
        path = tmp_path / "disk"
        with path.open("wb") as file:
            file.truncate(SIZE)
        front = Front(sink=File(path)).connect()
        front.one(WRITE, 2047, b"\xee" * 512)
        front.one(FLUSH, segments=[])
        assert path.read_bytes() == bytes(SIZE - 512) + b"\xee" * 512

    def test_a_grant_is_let_go_before_its_response(self):
        front = Front().connect()
        front.one(WRITE, 0, b"\xee" * 512)
        assert len(front.guest.machine.gnttab.mappings) == 1  # the ring

    @pytest.mark.parametrize(
        "request_",
        [
            {"sector": 2048, "data": bytes(512)},
            {"segments": []},
            {"segments": [(0, 0, 0)] * 12},
            {"segments": [(20, 5, 4)]},
            {"segments": [(20, 0, 8)]},
            {"segments": [(400, 0, 7)]},
        ],
        ids=["beyond", "no segments", "12 segments", "first after last", "9 sectors", "bad grant"],
    )
    def test_what_cannot_be_done_is_an_error_and_changes_nothing(self, request_):
        front = Front().connect()
        before = bytes(front.sink.data)
        assert front.one(WRITE, **request_)[0] == (1000, WRITE, ERROR)
        assert front.sink.data == before

    def test_an_operation_it_does_not_know_is_eopnotsupp(self):
        front = Front().connect()
        assert front.one(5, segments=[])[0] == (1000, 5, EOPNOTSUPP)

    def test_more_requests_than_the_ring_has_room_for_halt_it(self):
        front = Front().connect()
        front.prod = 33
        assert front.kick() == []
        assert front.disk.ring.halted


class TestFaults:
    def test_read_only(self):
        front = Front(read_only=True).connect()
        assert front.guest.store.read(f"{front.disk.path}/mode") == "r"
        assert front.guest.store.read(f"{front.disk.path}/info") == str(abi.VDISK_READONLY)
        before = bytes(front.sink.data)
        assert front.one(WRITE, 0, b"\xee" * 512)[0] == (1000, WRITE, ERROR)
        assert front.sink.data == before

    def test_error_after_so_many_bytes(self):
        front = Front(error_after=1024).connect()
        statuses = [front.one(WRITE, i, b"\xee" * 512)[0][2] for i in range(3)]
        assert statuses == [OKAY, OKAY, ERROR]

    def test_no_flush(self):
        front = Front(no_flush=True).connect()
        assert not front.guest.store.exists(f"{front.disk.path}/feature-flush-cache")
        assert front.one(FLUSH, segments=[])[0] == (1000, FLUSH, EOPNOTSUPP)

    @pytest.mark.parametrize(
        ("fault", "response"),
        [
            ("bad_id", (1001 ^ 0x5555555555555555, READ, OKAY)),
            ("bad_status", (1001, READ, -77)),
            ("fails", (1001, READ, ERROR)),
            ("wrong_operation", (1001, WRITE, OKAY)),
        ],
    )
    def test_one_response_is_wrong(self, fault, response):
        front = Front(**{fault: 1}).connect()
        for _ in range(3):
            front.put(READ)
        assert front.kick() == [(1000, READ, OKAY), response, (1002, READ, OKAY)]

    def test_id_twice(self):
        front = Front(id_twice=0).connect()
        front.put(READ)
        assert front.kick() == [(1000, READ, OKAY)] * 2

    def test_overflow(self):
        front = Front(overflow=1).connect()
        front.one(READ)
        assert front.rsp_prod() == 1
        front.one(READ)
        assert front.rsp_prod() > 2 + SLOTS

    def test_never_answers_and_keeps_the_pages(self):
        front = Front(never_answers=1).connect()
        front.put(READ)
        front.put(READ)
        assert front.kick() == [(1000, READ, OKAY)]
        assert len(front.guest.machine.gnttab.mappings) == 2

    def test_dies(self):
        front = Front(dies=1).connect()
        front.put(READ)
        front.put(READ)
        front.kick()
        assert front.disk.states == [INIT_WAIT, CONNECTED, CLOSING, CLOSED]
        assert front.guest.machine.gnttab.mappings == []

    def test_reorder_draws_an_order_by_seed_and_loses_nothing(self):
        def order(seed):
            front = Front(seed=seed, reorder=True).connect()
            for _ in range(16):
                front.put(READ)
            return [number for number, _, _ in front.kick()]

        assert sorted(order(1)) == [1000 + i for i in range(16)]
        assert order(1) == order(1)
        assert order(1) != order(2)

    def test_latency(self):
        front = Front(latency=1_000_000).connect()
        front.put(READ)
        assert front.kick() == []
        front.guest.machine.clock.advance(front.guest.machine.clock.now + 1_000_000)
        assert front.responses() == [(1000, READ, OKAY)]


def test_a_write_that_an_earlier_kernel_left_in_the_ring_is_done_at_the_next_event():
    front = Front().connect()
    front.kernel.write_in_flight(front.disk, 7, b"\xee" * 512)
    assert not front.disk.seen
    front.guest.machine.evtchn.send(1, front.port)
    front.guest.settle()
    assert front.sink.data[7 * 512 : 8 * 512] == b"\xee" * 512


@pytest.mark.parametrize(("name", "number"), [("xvda", 51712), ("xvdb", 51728), ("xvdp", 51952)])
def test_disk_names_have_linux_numbers(name, number):
    assert vdev(name) == number


@pytest.mark.parametrize("name", ["sda", "xvdq", "xvda1", "xvd"])
def test_other_disk_names_are_refused(name):
    with pytest.raises(ValueError, match="xvda to xvdp"):
        vdev(name)
