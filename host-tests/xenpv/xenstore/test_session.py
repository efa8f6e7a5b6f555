"""A xenstore connection without I/O: requests to bytes, bytes to events."""

import pytest

from xenpv import abi
from xenpv.errors import RingCorrupt
from xenpv.xenstore.session import OUT_SIZE, Reply, Session, WatchEvent
from xenpv.xenstore.wire import Packet


def session_with(*types):
    """A session that has sent requests of these types, with ids from 100 and owners from 0 on."""
    session = Session(100)
    for type in types:
        session.request(type, 0, b"x\0", f"owner {len(session.owners())}")
    session.sent(len(session.outgoing()))
    return session


def events(session, raw):
    session.receive(raw)
    found = []
    event = session.event()
    while event is not None:
        found.append(event)
        event = session.event()
    return found


def test_a_request_has_an_id_of_its_own_and_becomes_bytes():
    session = Session(0x7FFFFFFF)
    assert session.request(abi.XS_READ, 7, b"a\0") == 0x7FFFFFFF
    assert session.request(abi.XS_READ, 0, b"b\0") == 0
    first = Packet(abi.XS_READ, 0x7FFFFFFF, 7, b"a\0").encode()
    second = Packet(abi.XS_READ, 0, 0, b"b\0").encode()
    assert bytes(session.outgoing()) == first + second
    session.sent(len(first) + 3)
    assert bytes(session.outgoing()) == second[3:]


def test_an_id_whose_reply_is_still_awaited_is_not_given_again():
    session = session_with(abi.XS_READ)
    session._next_id = 100
    assert session.request(abi.XS_READ, 0, b"a\0") == 101


def test_replies_are_matched_in_any_order():
    session = session_with(abi.XS_READ, abi.XS_WRITE)
    raw = Packet(abi.XS_WRITE, 101, 0, b"OK\0").encode() + Packet(16, 100, 0, b"EIO\0").encode()
    found = events(session, raw)
    assert [(e.owner, e.error) for e in found] == [("owner 1", None), ("owner 0", "EIO")]
    assert all(isinstance(e, Reply) for e in found)
    assert session.flying() == 0


def test_a_reply_whose_caller_has_gone_is_dropped_and_counted():
    session = session_with(abi.XS_READ, abi.XS_READ)
    session.abandon(100)
    raw = b"".join(Packet(abi.XS_READ, n, 0, b"").encode() for n in (100, 101, 555))
    assert [e.owner for e in events(session, raw)] == ["owner 1"]
    assert session.strays == 2


def test_the_type_of_a_reply_to_nobody_does_not_matter():
    session = session_with(abi.XS_READ)
    session.abandon(100)
    assert events(session, Packet(abi.XS_RM, 100, 9, b"").encode()) == []


@pytest.mark.parametrize(
    ("packet", "message"),
    [
        (Packet(abi.XS_RM, 100, 0, b""), "reply of type 13 to req_id 100, which asked for type 2"),
        (Packet(abi.XS_READ, 100, 3, b""), "reply with tx_id 3 to req_id 100, .* with tx_id 0"),
        (Packet(abi.XS_WATCH_EVENT, 0, 0, b"no NUL"), "watch event whose 6 bytes are not path"),
        (Packet(abi.XS_WATCH_EVENT, 0, 0, b"one\0"), "watch event whose 4 bytes are not path"),
    ],
)
def test_what_breaks_the_protocol_is_named(packet, message):
    session = session_with(abi.XS_READ)
    session.receive(packet.encode())
    with pytest.raises(RingCorrupt, match=message):
        session.event()


def test_a_watch_event_is_path_and_token():
    (event,) = events(Session(0), Packet(abi.XS_WATCH_EVENT, 0, 0, b"a/b\0tok\0").encode())
    assert isinstance(event, WatchEvent)
    assert (event.path, event.token) == (b"a/b", b"tok")


def test_what_does_not_fit_is_not_taken():
    session = Session(0)
    large = bytes(abi.XENSTORE_PAYLOAD_MAX)
    count = 0
    while session.fits(large):
        session.request(abi.XS_WRITE, 0, large)
        count += 1
    assert count == OUT_SIZE // (len(large) + 16)
    session.sent(len(large) + 16)
    assert session.fits(large)


def test_a_payload_over_the_limit_is_refused_and_nothing_was_taken():
    session = Session(0)
    with pytest.raises(ValueError, match="4097 bytes is over 4096"):
        session.request(abi.XS_WRITE, 0, bytes(4097))
    assert (len(session.outgoing()), session.flying()) == (0, 0)


def test_room_is_there_again_once_all_events_were_taken():
    session = session_with(abi.XS_READ)
    raw = Packet(abi.XS_READ, 100, 0, bytes(4096)).encode()
    while raw:
        count = min(session.room(), 1000)
        assert count > 0
        session.receive(raw[:count])
        raw = raw[count:]
        event = session.event()
    assert len(event.payload) == 4096
