"""The packets that wait for a client: events that nobody takes, and their cost to others."""

import pytest
from xenstored.clients import HOME, Client, guests_store

from pvdump.xenstored.domain import DOM0
from pvdump.xenstored.outgoing import EVENT_TIMEOUT, EVENTS_HELD, PACKET_COST
from pvxen.clock import Clock
from xenpv import abi
from xenpv.xenstore.wire import Packet

OUTSTANDING = 20
OTHER = "/local/domain/2"


@pytest.fixture
def clock():
    return Clock(0, 0)


@pytest.fixture
def server():
    return guests_store()


@pytest.fixture
def connect(server, clock):
    """Makes clients whose events expire by the clock."""

    def connect(domid):
        client = Client(server, domid)
        client.connection.attach(
            wake=lambda: None,
            now=lambda: clock.now,
            wake_at=lambda when: clock.at(when, client.connection.expire),
        )
        return client

    return connect


@pytest.fixture
def writer(connect):
    return connect(1)


@pytest.fixture
def reader(connect, server):
    """A guest that may read the writer's nodes, and watches them."""
    server.write(f"{HOME}/data", "", "n1 r2")
    reader = connect(2)
    reader.watch(f"{HOME}/data")
    reader.events_since()
    return reader


def write(client, *numbers):
    """Send writes and take their replies. Returns how many were answered."""
    answered = 0
    for number in numbers:
        request = Packet(abi.XS_WRITE, number, 0, b"data/%d\0" % number)
        client.connection.receive(request.encode())
        answered += len(client.output())
    return answered


def test_a_guest_that_does_not_read_stalls_another_for_20_s_only(writer, reader, clock):
    assert write(writer, *range(30)) == OUTSTANDING
    clock.advance(EVENT_TIMEOUT - 1)
    assert write(writer) == 0
    assert writer.connection.stalled()
    clock.advance(EVENT_TIMEOUT)
    assert EVENT_TIMEOUT == 20_000_000_000
    assert writer.connection.outstanding == 0
    writer.connection.work()
    assert len(writer.output()) == 30 - OUTSTANDING


def test_a_guest_loses_the_events_that_it_did_not_take_in_time(writer, reader, clock):
    write(writer, 1, 2)
    clock.advance(clock.now + 5_000_000_000)
    write(writer, 3)
    clock.advance(EVENT_TIMEOUT)
    assert reader.connection.lost == 2
    assert reader.events_since() == [f"{HOME}/data/3|t|"]


def test_an_event_that_was_lost_is_queued_again(writer, reader, clock):
    write(writer, 1)
    clock.advance(EVENT_TIMEOUT)
    assert reader.events_since() == []
    write(writer, 1)
    assert reader.events_since() == [f"{HOME}/data/1|t|"]


def test_replies_between_events_are_not_lost(writer, reader, clock):
    write(writer, 1)
    reader.connection.receive(Packet(abi.XS_GET_DOMAIN_PATH, 9, 0, b"2\0").encode())
    write(writer, 2)
    clock.advance(EVENT_TIMEOUT)
    assert reader.output() == [(abi.XS_GET_DOMAIN_PATH, 9, 0, f"{OTHER}\0".encode())]


def test_an_event_that_is_half_sent_is_finished_and_stalls_nobody(writer, reader, clock):
    write(writer, 1, 2)
    begun = reader.connection.take(7)
    reader.connection.drop(7)
    reader._parser.feed(begun)
    clock.advance(EVENT_TIMEOUT)
    assert writer.connection.outstanding == 0
    assert reader.events_since() == [f"{HOME}/data/1|t|"]


def test_a_guest_that_reads_in_time_loses_nothing(writer, reader, clock):
    for number in range(5):
        write(writer, number)
        clock.advance(clock.now + EVENT_TIMEOUT - 1)
        assert reader.events_since() == [f"{HOME}/data/{number}|t|"]
    assert reader.connection.lost == 0


def test_a_client_of_domain_0_stalls_nobody_either_and_loses_nothing(writer, connect, clock):
    tool = connect(DOM0)
    tool.watch(f"{HOME}/data")
    tool.events_since()
    assert write(writer, *range(30)) == OUTSTANDING
    clock.advance(EVENT_TIMEOUT)
    writer.connection.work()
    assert len(writer.output()) == 30 - OUTSTANDING
    assert tool.events_since() == [f"{HOME}/data/{number}|t|" for number in range(30)]


def test_one_timer_is_enough_for_all_events_of_a_client(writer, reader, clock):
    write(writer, *range(10))
    assert len(clock._timers) == 1


def test_what_waits_for_a_client_is_bounded_however_small_the_events(server, connect):
    tool = connect(DOM0)
    tool.watch("/", "")
    for number in range(2 * EVENTS_HELD // PACKET_COST):
        tool.connection.event(f"/{number}", b"")
    assert tool.connection.lost > 0
    assert len(tool.events_since()) <= EVENTS_HELD // PACKET_COST


def test_an_event_is_queued_once_though_the_same_one_is_half_sent(writer, reader):
    write(writer, 1)
    reader._parser.feed(reader.connection.take(7))
    reader.connection.drop(7)
    write(writer, 1)
    rest = reader.connection.take(len(f"{HOME}/data/1|t|") + 16 - 7)
    reader._parser.feed(rest)
    reader.connection.drop(len(rest))
    write(writer, 1)
    assert reader.events_since() == [f"{HOME}/data/1|t|"] * 2
