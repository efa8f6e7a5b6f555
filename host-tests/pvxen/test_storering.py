"""The store's side of the shared page: bytes, indexes, features, and the reconnect handshake."""

import pytest
from xenstored.clients import HOME, Client, guests_store

import hw
from pvxen.machine import Machine
from pvxen.storering import RingTransport
from xenpv import abi
from xenpv.bytering import ByteRing
from xenpv.xenstore.wire import Packet, Parser

RECONNECT, ERROR = 1, 2
GFN = 0x100
U32 = 1 << 32


class Front:
    """The guest's end of the ring, by hand. options: of RingTransport."""

    def __init__(self, seed=0, server=None, **options):
        self.machine = Machine(seed=seed)
        hw.attach(self.machine)
        self.server = server or guests_store()
        self.server.write(f"{HOME}/name", "guest", "n0 r1")
        self.port = self.machine.evtchn.alloc_unbound(1, 0)
        self.ring = RingTransport(self.machine, self.server, GFN, self.port, **options)
        self.page = page = self.ring.page
        self.out = ByteRing(page, 1024, page + 2052, page + 2048, "request")
        self.into = ByteRing(page + 1024, 1024, page + 2060, page + 2056, "reply")
        self.parser = Parser()

    def send(self, data):
        """Put bytes into the ring, and let the server work until it has nothing to do."""
        while data:
            count = self.out.write(data)
            data = data[count:]
            self.kick()

    def kick(self, read=True):
        self.machine.evtchn.send(1, self.port)
        self.machine.clock.idle()
        if read:
            self.parser.feed(self.into.read(1024))

    def replies(self):
        packets = []
        packet = self.parser.next()
        while packet is not None:
            packets.append((packet.req_id, packet.type, packet.payload))
            packet = self.parser.next()
        return packets

    def reconnect(self):
        hw.wr32(self.page + abi.XENSTORE_RING_CONNECTION, abi.XENSTORE_RECONNECT)
        self.kick(read=False)
        self.parser = Parser()

    def rd(self, offset):
        return hw.rd32(self.page + offset)


def read_request(number, path=b"name"):
    return Packet(abi.XS_READ, number, 0, path + b"\0").encode()


@pytest.mark.parametrize("start", [(0, 0), (1000, 1020), (0xFFFFFFF8, 0xFFFFFC10)])
@pytest.mark.parametrize("piecemeal", [False, True])
def test_requests_are_answered_from_any_index_on(start, piecemeal):
    front = Front(start=start, piecemeal=piecemeal, seed=1)
    for number in range(60):
        front.send(read_request(number))
    while front.into.used():
        front.kick()
    assert front.replies() == [(n, abi.XS_READ, b"guest") for n in range(60)]


def test_a_message_longer_than_the_ring_streams_through_it_both_ways():
    front = Front(server=guests_store(quotas={"node-size": 0}))
    front.send(Packet(abi.XS_WRITE, 1, 0, b"data/big\0" + b"v" * 4000).encode())
    front.send(read_request(2, b"data/big"))
    for _ in range(6):
        front.kick()
    assert front.replies() == [(1, abi.XS_WRITE, b"OK\0"), (2, abi.XS_READ, b"v" * 4000)]


def test_the_guest_is_told_by_an_event():
    front = Front()
    front.send(read_request(1))
    pending = front.machine.shared_info_page.view[abi.SHARED_INFO_EVTCHN_PENDING]
    assert pending >> front.port & 1


def test_replies_may_come_in_another_order_and_none_is_lost():
    orders = set()
    for seed in range(1, 6):
        front = Front(reorder=True, seed=seed)
        front.send(b"".join(read_request(number) for number in range(8)))
        orders.add(tuple(number for number, _, _ in front.replies()))
    assert all(sorted(order) == list(range(8)) for order in orders)
    assert len(orders) > 1


def test_a_guest_that_takes_no_replies_is_not_read_from_until_it_does():
    front = Front()
    data = b"".join(read_request(number) for number in range(200))
    left = data
    while count := front.out.write(left):
        left = left[count:]
        front.kick(read=False)
    assert front.ring.connection.outstanding == 20
    while left or front.ring.connection.pending():
        left = left[front.out.write(left) :]
        front.kick()
    assert [number for number, _, _ in front.replies()] == list(range(200))


def test_a_guest_that_never_reads_its_ring_stalls_another_for_20_s_only():
    front = Front()
    front.server.write(f"{HOME}/data", "", "n2 r1")
    front.send(Packet(abi.XS_WATCH, 1, 0, b"data\0" + b"t" * 1000 + b"\0").encode())
    for _ in range(4):
        front.kick()
    writer = Client(front.server, 2)
    while not writer.connection.stalled():
        writer.write(f"{HOME}/data/{writer.req_id}")
        front.kick(read=False)
    clock = front.machine.clock
    clock.advance(clock.now + 20_000_000_000 - 1)
    assert writer.connection.stalled()
    clock.advance(clock.now + 1)
    assert not writer.connection.stalled()
    # The event that had begun to fill the ring is whole, and the guest is served on.
    front.send(read_request(2))
    for _ in range(4):
        front.kick()
    kinds = [kind for _, kind, _ in front.replies()]
    assert kinds == [abi.XS_WATCH, abi.XS_WATCH_EVENT, abi.XS_WATCH_EVENT, abi.XS_READ]


class TestFeatures:
    def test_the_page_offers_all_of_them(self):
        assert Front().rd(abi.XENSTORE_RING_SERVER_FEATURES) == 7

    def test_the_page_offers_what_the_server_has(self):
        front = Front(server=guests_store(features=ERROR))
        assert front.rd(abi.XENSTORE_RING_SERVER_FEATURES) == ERROR

    def test_one_ring_may_have_others(self):
        assert Front(features=RECONNECT).rd(abi.XENSTORE_RING_SERVER_FEATURES) == RECONNECT

    def test_they_may_appear_late(self):
        front = Front(late=1000)
        assert front.rd(abi.XENSTORE_RING_SERVER_FEATURES) == 0
        front.machine.clock.advance(front.machine.clock.now + 1000)
        assert front.rd(abi.XENSTORE_RING_SERVER_FEATURES) == 7


class TestABrokenRing:
    def test_indexes_that_cannot_be_end_the_service_and_are_named(self):
        front = Front()
        hw.wr32(front.page + abi.XENSTORE_RING_REQ_PROD, 2000)
        front.kick()
        assert "request ring" in front.ring.broken
        assert front.rd(abi.XENSTORE_RING_ERROR) == abi.XENSTORE_ERROR_RINGIDX

    def test_a_packet_over_the_limit_is_a_protocol_error(self):
        front = Front()
        front.out.write(b"\xff" * 16)
        front.kick()
        assert front.rd(abi.XENSTORE_RING_ERROR) == abi.XENSTORE_ERROR_PROTO

    def test_without_the_feature_no_error_is_written(self):
        front = Front(features=RECONNECT)
        front.out.write(b"\xff" * 16)
        front.kick()
        assert front.ring.broken
        assert front.rd(abi.XENSTORE_RING_ERROR) == 0

    def test_it_takes_its_watches_and_transactions_with_it(self):
        front = Front()
        front.send(Packet(abi.XS_WATCH, 1, 0, b"data\0t\0").encode())
        front.send(Packet(abi.XS_TRANSACTION_START, 2, 0, b"\0").encode())
        front.out.write(b"\xff" * 16)
        front.kick()
        assert not front.ring.connection.watches
        assert not front.ring.connection.transactions

    def test_it_costs_nobody_else_anything(self):
        server = guests_store()
        front = Front(server=server)
        front.out.write(b"\xff" * 16)
        front.kick()
        other = server.connect(0)
        other.receive(read_request(7, b"/local/domain/1/name"))
        assert other.take(100) == Packet(abi.XS_READ, 7, 0, b"guest").encode()

    @pytest.mark.parametrize("index", [2048, 2052, 2056, 2060])
    def test_a_reconnect_repairs_it(self, index):
        front = Front()
        hw.wr32(front.page + index, 0x80000000)
        front.kick(read=False)
        front.ring.connection.event("/x", b"t")  # there is something to say
        front.kick(read=False)
        assert front.ring.broken
        front.reconnect()
        assert front.rd(abi.XENSTORE_RING_ERROR) == abi.XENSTORE_ERROR_NONE
        front.send(read_request(1))
        assert front.replies() == [(1, abi.XS_READ, b"guest")]


class TestReconnect:
    def test_it_drops_partial_packets_zeroes_the_indexes_and_clears_the_flag(self):
        front = Front(start=(77, 99))
        front.send(read_request(1)[:10])
        assert front.ring.connection.half_received()
        front.ring.leave_reply(b"half of it", read=3)
        front.reconnect()
        assert front.ring.indexes() == (0, 0, 0, 0)
        assert front.rd(abi.XENSTORE_RING_CONNECTION) == abi.XENSTORE_CONNECTED
        assert not front.ring.connection.half_received()
        front.send(read_request(2))
        assert front.replies() == [(2, abi.XS_READ, b"guest")]

    def test_it_drops_replies_that_wait(self):
        front = Front()
        for number in range(100):
            front.out.write(read_request(number))
            front.kick(read=False)
        assert front.ring.connection.pending()
        front.reconnect()
        assert not front.ring.connection.pending()
        assert front.ring.connection.outstanding == 0

    def test_it_drops_watches_and_transactions(self):
        front = Front()
        front.send(Packet(abi.XS_WATCH, 1, 0, b"data\0t\0").encode())
        front.send(Packet(abi.XS_TRANSACTION_START, 2, 0, b"\0").encode())
        front.reconnect()
        assert not front.ring.connection.watches
        assert not front.ring.connection.transactions

    @pytest.mark.parametrize("pattern", [b"deadbeef", b"\xff"])
    def test_it_fills_both_rings_with_the_pattern(self, pattern):
        front = Front(pattern=pattern)
        front.send(read_request(1))
        front.reconnect()
        assert bytes(hw.mem(front.page, 2048)) == pattern * (2048 // len(pattern))

    def test_it_leaves_the_features(self):
        front = Front()
        front.reconnect()
        assert front.rd(abi.XENSTORE_RING_SERVER_FEATURES) == 7

    def test_it_tells_the_guest(self):
        front = Front()
        front.machine.clock.idle()
        before = front.machine.evtchn.sent
        front.reconnect()
        assert front.machine.evtchn.sent == before + 2  # there and back

    def test_a_server_without_it_leaves_the_flag_and_serves_on(self):
        front = Front(features=0)
        front.reconnect()
        front.send(read_request(1))
        assert front.rd(abi.XENSTORE_RING_CONNECTION) == abi.XENSTORE_RECONNECT
        assert front.replies() == [(1, abi.XS_READ, b"guest")]


def test_what_the_crashed_kernel_left_half_written_is_taken_as_the_start_of_what_follows():
    front = Front(start=(500, 500))
    whole = read_request(1)
    front.ring.leave_request(whole[:20])
    front.machine.clock.idle()
    assert front.ring.connection.half_received()
    front.send(whole[20:])
    assert front.replies() == [(1, abi.XS_READ, b"guest")]


def test_a_domain_that_is_released_loses_its_ring_and_gets_another_when_introduced_again():
    front = Front()
    front.server.release(1)
    front.out.write(read_request(1))
    front.machine.evtchn.send(1, front.port)
    front.machine.clock.idle()
    assert front.ring.indexes()[:2] == (0, len(read_request(1)))
    front.server.write(f"{HOME}", "", "n0 r1")
    front.ring = RingTransport(front.machine, front.server, GFN, front.port)
    front.send(read_request(2))
    assert [number for number, _, _ in front.replies()] == [2]
