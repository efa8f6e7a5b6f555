"""hw.blake2b_update, hw.blake2b_final and hw.ed25519_check, against hashlib and RFC 8032."""

import hashlib

import pytest
from fixtures.ed25519 import Key, L
from hypothesis import given
from hypothesis import strategies as st

import hw

# RFC 8032, 7.1: secret, public, message, signature.
VECTORS = [
    (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155"
        "5fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
    ),
    (
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
        "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
    ),
    (
        "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac"
        "18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
    ),
]
KEY = Key(bytes(range(32)))


def hashed(*pieces):
    state = bytearray(256)
    for piece in pieces:
        hw.blake2b_update(state, piece)
    return hw.blake2b_final(state)


@pytest.mark.parametrize(("secret", "public", "message", "signature"), VECTORS)
def test_the_signatures_of_rfc_8032_hold(secret, public, message, signature):
    key = Key(bytes.fromhex(secret))
    assert key.public.hex() == public
    assert key.sign(bytes.fromhex(message)).hex() == signature
    words = [bytes.fromhex(each) for each in (signature, public, message)]
    assert hw.ed25519_check(*words) is True


# Around the blocks of SHA-512, of which key and signature fill 64 bytes.
@pytest.mark.parametrize("size", [*range(40, 70), 128, 175, 176, 177, 1000, 8192 + 64])
def test_a_message_of_any_size_is_checked(size):
    message = bytes(i * 7 % 251 for i in range(size))
    signature = KEY.sign(message)
    assert hw.ed25519_check(signature, KEY.public, message)
    assert not hw.ed25519_check(signature, KEY.public, message + b"\0")
    assert not hw.ed25519_check(signature, KEY.public, message[:-1])


def test_each_bit_of_signature_key_and_message_counts():
    message = b"text"
    parts = [KEY.sign(message), KEY.public, message]
    assert hw.ed25519_check(*parts)
    for i, part in enumerate(parts):
        for bit in range(8 * len(part)):
            other = bytearray(part)
            other[bit // 8] ^= 1 << bit % 8
            words = [*parts[:i], bytes(other), *parts[i + 1 :]]
            assert not hw.ed25519_check(*words), (i, bit)


def test_a_signature_has_one_form():
    signature = KEY.sign(b"text")
    number = int.from_bytes(signature[32:], "little") + L
    assert not hw.ed25519_check(signature[:32] + number.to_bytes(32, "little"), KEY.public, b"text")


@pytest.mark.parametrize("size", [0, 1, 127, 128, 129, 255, 256, 257, 100_000])
def test_a_hash_is_hashlib_s(size):
    content = bytes(i * 13 % 256 for i in range(size))
    assert hashed(content) == hashlib.blake2b(content).digest()


@given(st.lists(st.binary(max_size=300), max_size=6))
def test_a_hash_in_pieces_is_that_of_the_whole(pieces):
    assert hashed(*pieces) == hashlib.blake2b(b"".join(pieces)).digest()


def test_a_hash_can_go_on_after_it_was_looked_at():
    state = bytearray(256)
    hw.blake2b_update(state, b"a")
    assert hw.blake2b_final(state) == hashlib.blake2b(b"a").digest()
    hw.blake2b_update(state, b"b")
    assert hw.blake2b_final(state) == hashlib.blake2b(b"ab").digest()


@pytest.mark.parametrize("size", [0, 255, 257])
def test_other_sizes_are_refused(size):
    with pytest.raises(ValueError, match="256 bytes expected"):
        hw.blake2b_update(bytearray(size), b"")
    with pytest.raises(ValueError, match="256 bytes expected"):
        hw.blake2b_final(bytes(size))
    with pytest.raises(ValueError, match="64 bytes expected"):
        hw.ed25519_check(bytes(size), KEY.public, b"")
    with pytest.raises(ValueError, match="32 bytes expected"):
        hw.ed25519_check(bytes(64), bytes(size), b"")
