"""hw.x25519 and hw.seal, against the RFCs' vectors. The image's are compared in test_sealer.py."""

import pytest
from fixtures import chachapoly
from fixtures.sealcases import COUNTERS, PIECES, REFUSED, outcome, piece, sealed
from hypothesis import given
from hypothesis import strategies as st

import hw
from pvdump.arm.recipient import LOW_ORDER

KEY = bytes(range(0x80, 0xA0))
BASE = bytes([9]) + bytes(31)
SUNSCREEN = (
    b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, "
    b"sunscreen would be it."
)
# RFC 7748, 5.2: scalar, u, result.
X25519 = [
    (
        "a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4",
        "e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c",
        "c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552",
    ),
    (
        "4b66e9d4d1b4673c5ad22691957d6af5c11b6421e0ea01d42ca4169e7918ba0d",
        "e5210f12786811d3f4b7959d0538ae2c31dbe7106fc03c3efc4cd549c715a493",
        "95cbde9476e8907d7aade45cb4b873f88b595a68799fa152e6f8f7647aac7957",
    ),
]


@pytest.mark.parametrize(("scalar", "point", "shared"), X25519)
def test_x25519_gives_the_results_of_rfc_7748(scalar, point, shared):
    assert hw.x25519(bytes.fromhex(scalar), bytes.fromhex(point)).hex() == shared


def test_x25519_gives_the_results_of_rfc_7748_after_1000_rounds():
    k = u = BASE
    for _ in range(1000):
        k, u = hw.x25519(k, u), k
    assert k.hex() == "684cf59ba83309552800ef566f2f4d3c1c3887c49360e3875f2eb94d99532c51"


@given(st.binary(min_size=32, max_size=32), st.binary(min_size=32, max_size=32))
def test_both_sides_share_the_same(one, other):
    assert hw.x25519(one, hw.x25519(other, BASE)) == hw.x25519(other, hw.x25519(one, BASE))


@pytest.mark.parametrize("point", [bytes(32), b"\1" + bytes(31), b"\xec" + b"\xff" * 30 + b"\x7f"])
def test_a_point_of_low_order_gives_zeros(point):
    assert hw.x25519(KEY, point) == bytes(32)


@pytest.mark.parametrize("number", LOW_ORDER)
def test_each_recipient_that_arm_refuses_shares_zeros_with_everybody(number):
    assert hw.x25519(KEY, number.to_bytes(32, "little")) == bytes(32)


@pytest.mark.parametrize("size", [0, 31, 33])
def test_x25519_refuses_keys_of_other_sizes(size):
    with pytest.raises(ValueError, match="32 bytes"):
        hw.x25519(bytes(size), BASE)
    with pytest.raises(ValueError, match="32 bytes"):
        hw.x25519(BASE, bytes(size))


def test_the_reference_gives_the_result_of_rfc_8439():
    nonce, aad = (
        bytes.fromhex("070000004041424344454647"),
        bytes.fromhex("50515253c0c1c2c3c4c5c6c7"),
    )
    found = chachapoly.seal(KEY, nonce, SUNSCREEN, aad)
    assert found[:16].hex() == "d31a8d34648e60db7b86afbc53ef7ec2"
    assert found[-16:].hex() == "1ae10b594f09e26a7e902ecbd0600691"


@pytest.mark.parametrize("size", PIECES)
def test_a_piece_is_sealed_as_rfc_8439_has_it(size):
    assert sealed(KEY, 0, False, piece(size)) == chachapoly.seal(KEY, bytes(12), piece(size))


@pytest.mark.parametrize("is_last", [False, True])
@pytest.mark.parametrize("counter", COUNTERS)
def test_the_nonce_is_the_counter_and_whether_it_is_the_last(counter, is_last):
    nonce = counter.to_bytes(11, "big") + bytes([is_last])
    assert sealed(KEY, counter, is_last, b"text") == chachapoly.seal(KEY, nonce, b"text")


@given(
    key=st.binary(min_size=32, max_size=32),
    counter=st.integers(0, (1 << 64) - 1),
    content=st.binary(max_size=300),
)
def test_any_key_and_content_are_sealed_alike(key, counter, content):
    nonce = counter.to_bytes(11, "big") + b"\0"
    assert sealed(key, counter, False, content) == chachapoly.seal(key, nonce, content)


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_is_refused_and_nothing_is_written(name):
    assert outcome(*REFUSED[name][:4]) == REFUSED[name][4]
