"""The store's side of the shared page: bytes, indexes, and the reconnect handshake."""

import pytest

import hw
from pvdump.xen.guest import Guest
from xenpv import abi
from xenpv.ring import ByteRing
from xenpv.xs_wire import Packet, Parser

RECONNECT, ERROR = 1, 2


class Front:
    """The guest's end of the ring, by hand."""

    def __init__(self, **options):
        self.guest = Guest(**options)
        self.page = page = self.guest.ring.page
        self.port = self.guest.machine.params[abi.HVM_PARAM_STORE_EVTCHN]
        self.out = ByteRing(page, 1024, page + 2052, page + 2048, "request")
        self.into = ByteRing(page + 1024, 1024, page + 2060, page + 2056, "reply")
        self.parser = Parser()

    def send(self, data):
        """Put bytes into the ring, and let the server work until it has nothing to do."""
        while data:
            count = self.out.write(data)
            data = data[count:]
            self.kick()

    def kick(self):
        self.guest.machine.evtchn.send(1, self.port)
        self.guest.settle()
        self.parser.feed(self.into.read(1024))

    def replies(self):
        packets = []
        packet = self.parser.next()
        while packet is not None:
            packets.append((packet.req_id, packet.type, packet.payload))
            packet = self.parser.next()
        return packets

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
    front = Front()
    front.send(Packet(abi.XS_WRITE, 1, 0, b"data/big\0" + b"v" * 4000).encode())
    front.send(read_request(2, b"data/big"))
    for _ in range(6):
        front.kick()
    assert front.replies() == [(1, abi.XS_WRITE, b"OK\0"), (2, abi.XS_READ, b"v" * 4000)]


def test_the_guest_is_told_by_an_event():
    front = Front()
    front.send(read_request(1))
    pending = front.guest.machine.shared_info_page.view[abi.SHARED_INFO_EVTCHN_PENDING]
    assert pending >> front.port & 1


def test_replies_may_come_in_another_order_and_none_is_lost():
    orders = set()
    for seed in range(1, 6):
        front = Front(reorder=True, seed=seed)
        front.send(b"".join(read_request(number) for number in range(8)))
        orders.add(tuple(number for number, _, _ in front.replies()))
    assert all(sorted(order) == list(range(8)) for order in orders)
    assert len(orders) > 1


def test_indexes_that_cannot_be_end_the_service_and_are_named_where_the_page_offers_it():
    front = Front(server_features=ERROR)
    hw.wr32(front.page + abi.XENSTORE_RING_REQ_PROD, 2000)
    front.kick()
    assert "request ring" in front.guest.ring.broken
    assert front.rd(abi.XENSTORE_RING_ERROR) == abi.XENSTORE_ERROR_RINGIDX


def test_a_packet_over_the_limit_is_a_protocol_error():
    front = Front(server_features=ERROR)
    front.out.write(b"\xff" * 16)
    front.kick()
    assert front.rd(abi.XENSTORE_RING_ERROR) == abi.XENSTORE_ERROR_PROTO


def test_without_the_feature_no_error_is_written():
    front = Front()
    front.out.write(b"\xff" * 16)
    front.kick()
    assert front.guest.ring.broken
    assert front.rd(abi.XENSTORE_RING_ERROR) == 0


class TestReconnect:
    def reconnect(self, front):
        hw.wr32(front.page + abi.XENSTORE_RING_CONNECTION, abi.XENSTORE_RECONNECT)
        front.kick()

    def test_it_drops_partial_packets_zeroes_the_indexes_and_clears_the_flag(self):
        front = Front(server_features=RECONNECT, start=(77, 99))
        front.send(read_request(1)[:10])
        assert front.guest.ring.connection.half_received()
        front.guest.ring.leave_reply(b"half of it", read=3)
        self.reconnect(front)
        assert front.guest.ring.indexes() == (0, 0, 0, 0)
        assert front.rd(abi.XENSTORE_RING_CONNECTION) == abi.XENSTORE_CONNECTED
        assert not front.guest.ring.connection.half_received()
        front.parser = Parser()
        front.send(read_request(2))
        assert front.replies() == [(2, abi.XS_READ, b"guest")]

    def test_it_drops_watches_and_transactions(self):
        front = Front(server_features=RECONNECT)
        front.send(Packet(abi.XS_WATCH, 1, 0, b"data\0t\0").encode())
        front.send(Packet(abi.XS_TRANSACTION_START, 2, 0, b"\0").encode())
        self.reconnect(front)
        assert front.guest.ring.connection.watches == []
        assert front.guest.ring.connection.transactions == {}

    def test_it_tells_the_guest(self):
        front = Front(server_features=RECONNECT)
        before = front.guest.machine.evtchn.sent
        self.reconnect(front)
        assert front.guest.machine.evtchn.sent == before + 2  # there and back

    def test_a_server_without_it_leaves_the_flag_and_serves_on(self):
        front = Front()
        self.reconnect(front)
        front.send(read_request(1))
        assert front.rd(abi.XENSTORE_RING_CONNECTION) == abi.XENSTORE_RECONNECT
        assert front.replies() == [(1, abi.XS_READ, b"guest")]


def test_what_an_earlier_kernel_left_half_written_is_taken_as_the_start_of_what_follows():
    front = Front(start=(500, 500))
    whole = read_request(1)
    front.guest.ring.leave_request(whole[:20])
    front.guest.settle()
    assert front.guest.ring.connection.half_received()
    front.send(whole[20:])
    assert front.replies() == [(1, abi.XS_READ, b"guest")]
