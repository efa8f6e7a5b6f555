"""Recipients: age's own keys are taken, and everything that is none is refused in one line."""

from argparse import ArgumentTypeError

import pytest
from fixtures import bech32

from pvdump.arm.recipient import LOW_ORDER, PRIME, recipient

# Of age's test suite (C2SP CCTV): the identity of 32 bytes "B", and its recipient.
SECRET = b"B" * 32
IDENTITY = "AGE-SECRET-KEY-1GFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPQ4EGAEX"
RECIPIENT = "age1zvkyg2lqzraa2lnjvqej32nkuu0ues2s82hzrye869xeexvn73equnujwj"


def x25519(scalar: int, u: int) -> int:
    """RFC 7748's function, without the clamping of the scalar."""
    a, b, c, d = 1, 0, u, 1
    for bit in reversed(range(scalar.bit_length())):
        if scalar >> bit & 1:
            a, b, c, d = c, d, a, b
        plus, minus = (a + b) ** 2 % PRIME, (a - b) ** 2 % PRIME
        left, right = (c - d) * (a + b), (c + d) * (a - b)
        both = plus - minus
        a, b = plus * minus % PRIME, both * (plus + 121665 * both) % PRIME
        c, d = (left + right) ** 2 % PRIME, u * (left - right) ** 2 % PRIME
        if scalar >> bit & 1:
            a, b, c, d = c, d, a, b
    return a * pow(b, PRIME - 2, PRIME) % PRIME


def test_an_age_recipient_is_the_public_key_of_its_identity() -> None:
    scalar = int.from_bytes(SECRET, "little") & ~7 & (1 << 254) - 1 | 1 << 254
    assert recipient(RECIPIENT) == x25519(scalar, 9).to_bytes(32, "little")
    assert recipient(f" {RECIPIENT}\n") == recipient(RECIPIENT)


@pytest.mark.parametrize("at", range(4, len(RECIPIENT)))
def test_any_mistyped_character_is_noticed(at: int) -> None:
    other = "q" if RECIPIENT[at] != "q" else "p"
    with pytest.raises(ArgumentTypeError, match="mistyped"):
        recipient(RECIPIENT[:at] + other + RECIPIENT[at + 1 :])


@pytest.mark.parametrize(
    "text",
    [
        *("", "1", "age", "xvdb", "age2" + RECIPIENT[4:], RECIPIENT.upper()),
        *("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAA", bech32.encode("age1yubikey", bytes(33))),
        *(bech32.encode("age", bytes(n)) for n in (0, 31, 33)),
        bech32.encode("npub", recipient(RECIPIENT)),
    ],
)
def test_what_is_no_x25519_recipient_is_refused(text: str) -> None:
    with pytest.raises(ArgumentTypeError, match="no X25519 recipient of age"):
        recipient(text)


@pytest.mark.parametrize(
    "text", ["age1", "age1q", RECIPIENT[:-1], RECIPIENT + "q", "age1\xe9", "age1" + "q" * 10000]
)
def test_a_damaged_recipient_is_refused(text: str) -> None:
    with pytest.raises(ArgumentTypeError, match="mistyped") as caught:
        recipient(text)
    assert len(str(caught.value)) < 200


def test_bits_behind_the_key_must_be_zeros() -> None:
    digits = bech32.digits(recipient(RECIPIENT))
    digits[-1] |= 1
    with pytest.raises(ArgumentTypeError, match="no X25519 recipient of age"):
        recipient(bech32.from_digits("age", digits))


def test_a_private_key_is_refused_and_never_repeated() -> None:
    for text in (IDENTITY, IDENTITY.lower(), " " + IDENTITY):
        with pytest.raises(ArgumentTypeError, match="a private key") as caught:
            recipient(text)
        assert "GFPYY" not in str(caught.value).upper()


LOW = [u + n * PRIME for u in LOW_ORDER for n in range(2) if u + n * PRIME < 1 << 255]


@pytest.mark.parametrize("u", [*LOW, *(u | 1 << 255 for u in LOW)])
def test_a_point_of_low_order_is_refused_in_every_form(u: int) -> None:
    assert x25519(8, u % (1 << 255) % PRIME) == 0
    with pytest.raises(ArgumentTypeError, match="low order"):
        recipient(bech32.encode("age", u.to_bytes(32, "little")))


@pytest.mark.parametrize("u", [2, 9, PRIME - 2, (1 << 255) - 1])
def test_points_beside_them_are_taken(u: int) -> None:
    assert x25519(8, u % PRIME) != 0
    key = u.to_bytes(32, "little")
    assert recipient(bech32.encode("age", key)) == key
