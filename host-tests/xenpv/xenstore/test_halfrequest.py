"""The half request of a crashed kernel: found by its header, completed without harm to a server."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pvxen.storering import aborts
from xenpv import abi
from xenpv.xenstore import wire
from xenpv.xenstore.halfrequest import ONE_PATH, completion, takes_nuls

RING = abi.XENSTORE_RING_SIZE


def packet(kind, payload, tx_id=0):
    return wire.Packet(kind, 0x55, tx_id, payload).encode()


HISTORY = b"".join(
    [
        packet(abi.XS_READ, b"device/vbd/51712/state\0"),
        packet(abi.XS_WRITE, b"device/vbd/51712/state\x004"),
        packet(abi.XS_TRANSACTION_START, b"\0"),
        packet(abi.XS_WATCH, b"/local/domain/0/backend\0ffff8880\0"),
    ]
)
KINDS = {
    abi.XS_DIRECTORY: b"device/vbd\0",
    abi.XS_READ: b"device/vbd/51712/backend\0",
    abi.XS_GET_PERMS: b"data\0",
    abi.XS_WATCH: b"device/suspend/event-channel\0token\0",
    abi.XS_UNWATCH: b"device/suspend/event-channel\0token\0",
    abi.XS_TRANSACTION_START: b"\0",
    abi.XS_TRANSACTION_END: b"T\0",
    abi.XS_GET_DOMAIN_PATH: b"12\0",
    abi.XS_WRITE: b"data/half\0" + bytes(range(256)),
    abi.XS_MKDIR: b"data/new\0",
    abi.XS_RM: b"data/old\0",
    abi.XS_SET_PERMS: b"data\0b1\0r0\0",
    abi.XS_IS_DOMAIN_INTRODUCED: b"0\0",
    abi.XS_RESET_WATCHES: b"\0",
    abi.XS_DIRECTORY_PART: b"data\x00120\0",
}


def completed(stream):
    """The packets of a stream and of what completes it, which end with a whole one."""
    rest = completion(stream[-RING:])
    assert rest is not None
    parser, found = wire.Parser(), []
    for byte in stream + rest:
        parser.feed(bytes([byte]))
        one = parser.next()
        found += [one] if one else []
    assert not parser.pending()
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_a_request_cut_at_any_byte_is_completed_with_what_no_server_aborts_on(kind):
    whole = packet(kind, KINDS[kind])
    for cut in range(1, len(whole) + 1):
        last = completed(HISTORY + whole[:cut])[-1]
        assert not aborts(last), (cut, last)


@pytest.mark.parametrize("kind", ONE_PATH)
def test_a_path_that_was_cut_becomes_one_that_every_server_refuses(kind):
    whole = packet(kind, b"data/something\0")
    for cut in range(1, len(whole) - 1):
        last = completed(HISTORY + whole[:cut])[-1]
        assert last.type == kind
        assert b"?" in last.payload
        assert last.payload.index(b"\0") == len(last.payload) - 1


def test_a_stream_that_ends_with_a_whole_request_needs_nothing():
    assert completion(HISTORY[-RING:]) == b""
    assert completion(b"") == b""


def test_a_large_write_is_completed_as_long_as_its_header_is_in_the_ring():
    whole = packet(abi.XS_WRITE, b"data/half\0" + bytes(3000))
    for cut in (16, 17, 500, RING):
        assert completed(HISTORY + whole[:cut])[-1].type == abi.XS_WRITE


def test_the_first_request_of_all_may_be_cut_in_its_header():
    whole = packet(abi.XS_READ, b"domid\0")
    for cut in range(1, 16):
        rest = completion(whole[:cut])
        assert not aborts(wire.Packet(abi.XS_READ, 0, 0, (whole[:cut] + rest)[16:]))


@pytest.mark.parametrize("value", [bytes(3000), b"two words\0" * 300, bytes(range(256)) * 12])
def test_the_inside_of_a_large_value_with_nuls_takes_more(value):
    stream = HISTORY + packet(abi.XS_WRITE, b"data/half\0" + value)
    window = stream[: len(HISTORY) + 2000][-RING:]
    assert completion(window) is None
    assert takes_nuls(window)


@pytest.mark.parametrize("filler", [b"n", b".", b" ", b"?", b"\xc3\xa9"])
@pytest.mark.parametrize("tx_id", [0, abi.XS_READ])
@pytest.mark.parametrize("kind", ONE_PATH)
def test_a_long_path_is_completed_while_its_header_is_in_the_ring_and_takes_no_nuls_after(
    kind, tx_id, filler
):
    whole = packet(kind, b"data/" + filler * (2000 // len(filler)) + b"\0", tx_id)
    for cut in (17, RING - 1, RING):
        rest = completion((HISTORY + whole[:cut])[-RING:])
        assert rest is not None
        assert not aborts(wire.Packet(kind, 0x55, tx_id, (whole[:cut] + rest)[16:]))
    for cut in [*range(RING + 1, RING + 20), 1500, len(whole) - 1]:
        window = (HISTORY + whole[:cut])[-RING:]
        assert completion(window) is None
        assert not takes_nuls(window), cut


@pytest.mark.parametrize("size", range(1, 16))
def test_what_may_be_the_header_of_a_path_request_after_a_large_value_takes_no_nuls(size):
    value = b"two words\0" * 300
    window = (value + packet(abi.XS_READ, b"data\0")[:size])[-RING:]
    assert completion(window) is None
    assert not takes_nuls(window)


def test_a_request_with_a_path_that_is_none_is_completed_all_the_same():
    whole = packet(abi.XS_READ, b"no path at all\0")
    for cut in range(17, len(whole) - 1):
        assert not aborts(completed(HISTORY + whole[:cut])[-1])


@given(st.binary(max_size=200) | st.binary(max_size=60).map(lambda raw: HISTORY + raw))
def test_whatever_stands_in_the_ring_the_completion_is_no_longer_than_a_message(window):
    rest = completion(window)
    assert rest is None or len(rest) <= wire.PACKET_MAX
    assert takes_nuls(window) in (True, False)
