"""Xenstore packets against byte-exact vectors, whole and in every kind of piece."""

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from xenpv.errors import RingCorrupt
from xenpv.xenstore import wire

VECTORS = yaml.safe_load((Path(__file__).parents[2] / "vectors/xs_wire.yaml").read_text())
NAMES = [v["name"] for v in VECTORS]
STREAM = b"".join(bytes.fromhex(v["bytes"]) for v in VECTORS)


def as_tuple(packet):
    return packet.type, packet.req_id, packet.tx_id, packet.payload


def expected(vector):
    payload = vector["payload"].encode()
    return vector["type"], vector["req_id"], vector["tx_id"], payload


def drain(parser):
    found = []
    while (packet := parser.next()) is not None:
        found.append(as_tuple(packet))
    return found


@pytest.mark.parametrize("vector", VECTORS, ids=NAMES)
def test_a_packet_encodes_to_its_bytes(vector):
    assert wire.Packet(*expected(vector)).encode() == bytes.fromhex(vector["bytes"])


@pytest.mark.parametrize("vector", VECTORS, ids=NAMES)
def test_a_packet_split_at_every_byte_is_the_same_packet(vector):
    raw = bytes.fromhex(vector["bytes"])
    for cut in range(len(raw) + 1):
        parser = wire.Parser()
        parser.feed(raw[:cut])
        early = drain(parser)
        parser.feed(raw[cut:])
        assert early + drain(parser) == [expected(vector)]
        assert not early or cut == len(raw)
        assert not parser.pending()


@given(st.lists(st.integers(0, len(STREAM))))
def test_a_stream_in_any_pieces_gives_all_packets_in_order(cuts):
    parser = wire.Parser()
    found, at = [], 0
    for cut in [*sorted(cuts), len(STREAM)]:
        parser.feed(STREAM[at:cut])
        at = cut
        found += drain(parser)
    assert found == [expected(v) for v in VECTORS]


def test_the_largest_payload_goes_through_and_one_byte_more_does_not():
    largest = wire.Packet(11, 1, 0, b"x" * 4096)
    parser = wire.Parser()
    parser.feed(largest.encode())
    assert as_tuple(parser.next()) == as_tuple(largest)
    with pytest.raises(ValueError, match="4097 bytes is over 4096"):
        wire.Packet(11, 1, 0, b"x" * 4097).encode()


def test_a_header_that_announces_too_much_is_refused_before_its_payload_comes():
    parser = wire.Parser()
    parser.feed(bytes.fromhex("02000000 05000000 00000000 01100000"))
    with pytest.raises(RingCorrupt, match=r"len 4097 is over 4096 \(type 2, req_id 5\)"):
        parser.next()


@pytest.mark.parametrize(
    ("payload", "parts"),
    [
        (b"", []),
        (b"a\0b\0", [b"a", b"b"]),
        (b"a\0b", [b"a", b"b"]),
        (b"\0", [b""]),
        (b"a\0\0", [b"a", b""]),
    ],
)
def test_strings_of_a_payload(payload, parts):
    assert wire.strings(payload) == parts


def test_an_error_name_from_a_hostile_server_is_made_printable():
    assert wire.error_name(b"ENOENT\0") == "ENOENT"
    assert wire.error_name(b"\x1b[2J" + b"A" * 100) == "?[2J" + "A" * 28
    assert wire.error_name(b"") == "(no error name)"
