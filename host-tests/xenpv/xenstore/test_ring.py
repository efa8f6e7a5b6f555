"""The shared ring of the xenstore client: taken over, used, told about, handed back."""

import pytest
from fixtures.storeguest import HOME, PFN, StoreGuest

import hw
from pvdump.xenstored import requests, toolstack
from pvxen.machine import DOM0, Machine
from xenpv import abi
from xenpv.bytering import ByteRing
from xenpv.errors import NoXenstore, RingCorrupt, Timeout, XenError
from xenpv.loop import SECOND
from xenpv.xenstore import boundary, wire
from xenpv.xenstore.client import Xenstore
from xenpv.xenstore.ring import RingTransport

FEATURES = pytest.mark.parametrize("features", [0, 1], ids=["plain", "reconnect"])
PAGE = PFN * abi.PAGE_SIZE
WRITE = wire.Packet(abi.XS_WRITE, 3, 0, b"data/half\0" + b"x" * 50).encode()
READ = wire.Packet(abi.XS_READ, 4, 0, b"data/half/of/a/path\0").encode()
REMOVE = wire.Packet(abi.XS_RM, 5, 0, b"data/half/of/a/path\0").encode()
# What a kernel asked before: the ring is never empty in front of its last request.
BEFORE = wire.Packet(abi.XS_READ, 2, 0, b"device/vbd/51712/state\0").encode()


async def round_trip(store):
    await store.write("data/x", "value")
    assert await store.read("data/x") == b"value"
    await store.rm("data/x")


@pytest.mark.parametrize("start", [(0, 0), (0x3B5, 0x349), (0xFFFFFFF0, 0xFFFFFFFE)])
@pytest.mark.parametrize("events", ["2l", "dead"])
@FEATURES
def test_the_ring_is_used_from_whatever_indexes_it_has(start, events, features):
    setup = StoreGuest(Machine(events=events), start=start, features=features)
    setup.run(round_trip)
    assert setup.ring.reconnects == features


@pytest.mark.parametrize(
    ("features", "start", "found"),
    [
        (1, (5, 5), "connection made anew"),
        (0, (0, 0), "ring not used before"),
        (0, (5, 5), "indexes taken as found"),
    ],
)
def test_it_says_how_the_ring_was_found(features, start, found):
    setup = StoreGuest(features=features, start=start)
    setup.run(round_trip)
    assert setup.store.transport.found == found


@pytest.mark.parametrize("seed", range(20))
@FEATURES
def test_messages_larger_than_the_ring_go_through_in_pieces_of_any_size(seed, features):
    setup = StoreGuest(Machine(seed=seed), features=features, piecemeal=True)
    value = bytes(range(256)) * 15

    async def work(store):
        await store.write("data/big", value[:2048])
        assert await store.read("data/big") == value[:2048]

    setup.run(work)


def answers_late(ring, wait):
    """Have the server give its answers `wait` ns after it has the first of them."""
    give, clock = ring._give, ring.machine.clock
    timers = []

    def later():
        if ring.connection.pending() and not timers:
            timers.append(clock.after(wait, now))
        return 0

    def now():
        timers.clear()
        with hw.attached(ring.machine):
            give()
        ring.machine.evtchn.send(DOM0, ring.port)
        ring._wake()

    ring._give = later


def serves_slowly(ring, period):
    """Have the server move sixteen bytes each way, and no more, every so many ns."""
    work, clock = ring.step, ring.machine.clock
    timers = []

    def step():
        if not timers:
            timers.append(clock.after(period, turn))

    def turn():
        timers.clear()
        work()

    ring.step, ring._limit = step, lambda: 16
    ring.machine.evtchn.on(DOM0, ring.port, step)


class TestACrashedKernel:
    def test_with_reconnection_leaves_nothing(self):
        setup = StoreGuest(features=1, start=(5, 1000))
        setup.ring.leave_request(WRITE[:40])
        setup.ring.leave_reply(b"\x02\0\0\0half a header", read=3)
        setup.run(round_trip)
        assert setup.ring.reconnects == 1
        assert not setup.server.exists(HOME + "/data/half")

    @pytest.mark.parametrize("cut", range(1, len(WRITE)))
    @pytest.mark.parametrize("whole", [WRITE, READ, REMOVE], ids=["write", "read", "remove"])
    def test_left_a_request_half_written_and_it_is_completed_without_ending_a_server(
        self, whole, cut
    ):
        setup = StoreGuest(start=(500, 700), fragile=True)
        setup.ring.leave_request(BEFORE + whole[: min(cut, len(whole) - 1)])
        setup.machine.clock.idle()
        setup.run(round_trip)
        assert setup.ring.broken is None
        assert "a request completed with" in setup.store.transport.found

    def test_left_whole_requests_and_the_ring_is_used_after_half_a_second(self):
        setup = StoreGuest(start=(500, 700))
        setup.ring.leave_request(BEFORE)
        setup.machine.clock.idle()
        began = setup.machine.clock.now
        setup.run(round_trip)
        assert setup.machine.clock.now - began < SECOND // 2
        assert setup.store.transport.found == "indexes taken as found"

    def test_left_a_request_without_its_body_and_it_ends_no_server(self):
        setup = StoreGuest(start=(500, 700), fragile=True)
        header = wire.Packet(abi.XS_READ, 9, 0, bytes(16)).encode()[:16]
        setup.ring.leave_request(BEFORE + header)
        setup.machine.clock.idle()
        setup.run(round_trip)
        assert setup.ring.broken is None

    @pytest.mark.parametrize(
        ("cut", "letter"), [(1025, b"n"), (1039, b"n"), (1040, b"n"), (1500, b"n"), (1500, b".")]
    )
    def test_left_a_long_path_whose_header_is_overwritten_and_nothing_is_sent(self, cut, letter):
        setup = StoreGuest(start=(500, 700), fragile=True)
        whole = wire.Packet(abi.XS_READ, 3, 0, b"data/" + letter * 2000 + b"\0").encode()
        for at in range(0, cut, 500):
            setup.ring.leave_request(whole[at : min(at + 500, cut)])
            setup.machine.clock.idle()
        with pytest.raises(NoXenstore, match="its header cannot be made out in the ring"):
            setup.run(round_trip)
        assert setup.ring.broken is None
        assert setup.ring.indexes()[1] == 500 + cut

    @pytest.mark.parametrize("wait", [300, 600, 900])
    @pytest.mark.parametrize("cut", range(1, len(WRITE), 3))
    def test_left_a_request_half_written_to_a_server_that_is_slow_to_answer(self, cut, wait):
        setup = StoreGuest(start=(500, 700), fragile=True)
        setup.ring.leave_request(BEFORE + WRITE[:cut])
        setup.machine.clock.idle()
        answers_late(setup.ring, wait * SECOND // 1000)
        setup.run(round_trip)

    @pytest.mark.parametrize("slow", [False, True])
    @pytest.mark.parametrize("missing", [1, 15, 16, 1000, 2080])
    def test_left_a_large_request_half_written_and_it_is_completed(self, missing, slow):
        setup = StoreGuest(start=(500, 700), fragile=True)
        whole = wire.Packet(abi.XS_WRITE, 3, 0, b"data/half\0" + bytes(2000 + missing)).encode()
        for at in range(0, len(whole) - missing, 500):
            setup.ring.leave_request(whole[at : min(at + 500, len(whole) - missing)])
            setup.machine.clock.idle()
            hw.wr32(PAGE + abi.XENSTORE_RING_RSP_CONS, hw.rd32(PAGE + abi.XENSTORE_RING_RSP_PROD))
        if slow:
            serves_slowly(setup.ring, SECOND // 30)
        setup.run(round_trip)
        assert "as found, in step after" in setup.store.transport.found

    @pytest.mark.parametrize("left", [b"", BEFORE + READ[:20]], ids=["nothing", "half a request"])
    def test_left_a_ring_to_a_server_that_answers_type_0_as_oxenstored_does(
        self, left, monkeypatch
    ):
        setup = StoreGuest(start=(500, 700))
        monkeypatch.delitem(toolstack.REQUESTS, abi.XS_CONTROL)
        monkeypatch.setitem(requests.REQUESTS, abi.XS_CONTROL, lambda *_: b"OK\0")
        setup.ring.leave_request(left)
        setup.machine.clock.idle()
        setup.run(round_trip)

    def test_left_a_ring_to_a_server_that_answers_nothing_and_the_search_is_bounded(self):
        setup = StoreGuest(start=(500, 700))

        def drop():
            while setup.ring.connection.pending():
                setup.ring.connection.drop(len(setup.ring.connection.take(4096)))
            return 0

        setup.ring._give = drop
        with pytest.raises(NoXenstore, match="is answered as it should be"):
            setup.run(round_trip)
        sent = setup.ring.indexes()[1] - 500
        assert sent <= boundary.NULS_MAX + wire.PACKET_MAX

    @pytest.mark.parametrize("read", range(0, 20, 3))
    def test_left_a_reply_half_read_and_it_is_passed_over(self, read):
        setup = StoreGuest(start=(500, 700))
        setup.ring.leave_reply(wire.Packet(abi.XS_READ, 77, 0, b"old").encode(), read=read)
        setup.run(round_trip)

    def test_left_watches_and_they_are_reset_where_that_is_offered(self):
        setup = StoreGuest(start=(500, 700))
        setup.server.write(HOME + "/control/platform-feature-xs_reset_watches", "1", "n0 r1")
        watch = wire.Packet(abi.XS_WATCH, 3, 0, b"data\0old\0").encode()
        setup.ring.leave_request(watch)
        setup.machine.clock.idle()
        assert setup.ring.connection.watches
        setup.run(round_trip)
        assert not setup.ring.connection.watches

    def test_left_watches_that_cannot_be_reset_and_their_events_harm_nobody(self):
        setup = StoreGuest(start=(500, 700))
        setup.ring.leave_request(wire.Packet(abi.XS_WATCH, 3, 0, b"data\0old\0").encode())
        setup.machine.clock.idle()
        for after in range(20):
            setup.machine.clock.after(
                after * SECOND // 10, lambda: setup.server.write(HOME + "/data/y", "1")
            )
        setup.run(round_trip)

    def test_left_more_replies_than_the_ring_holds(self):
        setup = StoreGuest(start=(500, 700))
        setup.server.write(HOME + "/data/big", "v" * 900, "n1")
        for number in range(20):
            request = wire.Packet(abi.XS_READ, number, 0, b"data/big\0").encode()
            setup.ring.leave_request(request)
            setup.machine.clock.idle()
        setup.run(round_trip)


@FEATURES
def test_after_close_another_client_can_use_the_ring(features):
    setup = StoreGuest(features=features)

    async def work(store):
        await round_trip(store)
        await store.close()
        again = Xenstore(setup.loop, RingTransport(setup.xen, setup.loop))
        await again.connect()
        await round_trip(again)
        await again.close()

    setup.run(work)
    assert setup.ring.reconnects == 4 * features
    req_cons, req_prod, rsp_cons, rsp_prod = setup.ring.indexes()
    assert (req_cons, rsp_cons) == (req_prod, rsp_prod)


@FEATURES
def test_closing_leaves_no_watch_behind(features):
    setup = StoreGuest(features=features)

    async def work(store):
        await store.watch("data")
        await store.close()

    setup.run(work)
    assert not setup.ring.connection.watches


class TestTelling:
    def ring(self):
        machine = Machine()
        hw.attach(machine)
        hw.mem(PAGE, abi.PAGE_SIZE)[:] = bytes(abi.PAGE_SIZE)
        return [ByteRing(PAGE, 1024, PAGE + 2052, PAGE + 2048, end) for end in ("near", "far")]

    def test_a_reader_that_has_read_all_is_told(self):
        writer, _ = self.ring()
        writer.write(b"x")
        assert writer.due

    def test_a_reader_that_has_something_left_is_not_told_again(self):
        writer, _ = self.ring()
        writer.write(b"x")
        writer.told()
        writer.write(b"y")
        assert not writer.due

    def test_a_writer_is_told_once_a_whole_ring_was_taken(self):
        writer, reader = self.ring()
        for _ in range(1023):
            writer.write(b"x")
            reader.read(1)
        assert not reader.due
        writer.write(b"x")
        reader.read(1)
        assert reader.due

    def test_many_requests_in_flight_are_told_of_together(self):
        setup = StoreGuest()

        async def work(store):
            await store.write("data/x", "v")
            before = store.transport.sent
            await setup.loop.gather([store.read("data/x") for _ in range(20)])
            assert store.transport.sent == before + 1

        setup.run(work)


def test_a_server_whose_event_was_lost_is_told_again_after_a_second():
    setup = StoreGuest()
    port = setup.machine.evtchn.port(DOM0, setup.ring.port)

    def lose():
        port.intercept = None

    async def work(store):
        await store.loop.sleep(SECOND)
        port.intercept = lose
        began = setup.machine.clock.now
        assert await store.read("name") == b"guest"
        assert port.intercept is None
        assert SECOND <= setup.machine.clock.now - began < 2 * SECOND

    setup.run(work)


def test_a_request_after_a_long_silence_is_told_once():
    setup = StoreGuest()

    async def work(store):
        await store.loop.sleep(60 * SECOND)
        before = store.transport.sent
        await store.read("name")
        assert store.transport.sent == before + 1

    setup.run(work)


def test_a_reply_that_was_taken_is_told_of_once_a_ring_s_worth():
    setup = StoreGuest()

    async def work(store):
        for _ in range(100):
            await store.read("name")
        before = store.transport.sent
        for _ in range(20):
            await store.read("name")
        assert store.transport.sent <= before + 20 + 1

    setup.run(work)


@pytest.mark.parametrize(("pfn", "port"), [(0, 3), (2**64 - 1, 3)])
def test_a_guest_without_xenstore_is_told_so(pfn, port):
    setup = StoreGuest()
    setup.machine.params[abi.HVM_PARAM_STORE_PFN] = pfn
    with pytest.raises(NoXenstore, match="no xenstore: HVM_PARAM_STORE_PFN"):
        setup.run(round_trip)


def test_a_port_that_cannot_be_is_refused():
    setup = StoreGuest()
    setup.machine.params[abi.HVM_PARAM_STORE_EVTCHN] = 0
    with pytest.raises(XenError, match="port 0 is not valid"):
        setup.run(round_trip)


def test_a_silent_server_is_given_up_with_the_four_indexes():
    setup = StoreGuest()
    setup.ring.deaf = True
    with pytest.raises(
        Timeout, match=r"read name: no reply within 5000 ms; indexes req 15/0 rsp 0/0"
    ):
        setup.run(lambda store: store.read("name"))


def test_a_server_that_ignores_reconnection_is_given_up():
    setup = StoreGuest(features=1)
    setup.ring.deaf = True
    with pytest.raises(NoXenstore, match="did not clear `connection` within 5 s; oxenstored"):
        setup.run(round_trip)


def test_a_server_that_takes_nothing_of_a_stale_ring_is_given_up():
    setup = StoreGuest(start=(5, 5))
    setup.ring.deaf = True
    with pytest.raises(NoXenstore, match="took nothing from the ring for 5 s; indexes req 14/5"):
        setup.run(round_trip)


def test_indexes_that_jump_end_the_connection():
    setup = StoreGuest()
    setup.ring.deaf = True

    def jump():
        hw.wr32(PAGE + abi.XENSTORE_RING_RSP_PROD, 5000)

    setup.machine.clock.after(SECOND, jump)
    with pytest.raises(RingCorrupt, match="reply ring: prod 0x1388 - cons 0x0 is over its 1024"):
        setup.run(lambda store: store.read("name"))


def test_a_server_that_has_given_up_is_noticed_before_the_deadline_and_named():
    setup = StoreGuest(features=abi.XENSTORE_SERVER_FEATURE_ERROR)
    setup.ring.deaf = True

    def give_up():
        hw.wr32(PAGE + abi.XENSTORE_RING_ERROR, abi.XENSTORE_ERROR_RINGIDX)

    setup.machine.clock.after(SECOND // 2, give_up)
    began = setup.machine.clock.now
    with pytest.raises(RingCorrupt, match=r"given the connection up; .* error 2 \(ring index\)"):
        setup.run(lambda store: store.read("name"))
    assert setup.machine.clock.now - began < 2 * SECOND


def test_a_server_that_gave_up_on_the_crashed_kernel_is_named_with_its_error():
    setup = StoreGuest(features=abi.XENSTORE_SERVER_FEATURE_ERROR, start=(5, 5))
    hw.wr32(PAGE + abi.XENSTORE_RING_ERROR, abi.XENSTORE_ERROR_PROTO)
    with pytest.raises(RingCorrupt, match=r"given the connection up; indexes .* 3 \(protocol\)"):
        setup.run(round_trip)


def test_a_broken_connection_is_repaired_by_connecting_again():
    setup = StoreGuest(features=3)

    async def work(store):
        await round_trip(store)
        hw.wr32(PAGE + abi.XENSTORE_RING_REQ_CONS, 7000)
        with pytest.raises(XenError):
            await store.read("name")
        await store.connect()
        await round_trip(store)

    setup.run(work)
