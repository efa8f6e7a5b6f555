"""The public keys that a dump is encrypted to, as age writes them: age1...

Used by `pvdump arm`. The rule: a key that is none, was mistyped, or would let anybody decrypt is
refused when the image is armed, because when the kernel has crashed it is too late. A private key
is never repeated in a message.
Source: the age file format, X25519 recipients; BIP 173, Bech32; RFC 7748.
"""

from __future__ import annotations

from argparse import ArgumentTypeError

PREFIX = "age"
SIZE = 32  # bytes of a key
DIGITS = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
CHECKSUM = 6  # digits
GENERATOR = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)
PRIME = (1 << 255) - 19
# The u coordinates of the points of order 1, 2, 4 and 8 of the curve and its twist: whatever the
# other key is, what two parties share is then zero.
ORDER_8 = (
    0xB8495F16056286FDB1329CEB8D09DA6AC49FF1FAE35616AEB8413B7C7AEBE0,
    0x57119FD0DD4E22D8868E1C58C45C44045BEF839C55B1D0B1248C50A3BC959C5F,
)
LOW_ORDER = (0, 1, PRIME - 1, *ORDER_8)


def recipient(text: str) -> bytes:
    """Read an X25519 recipient of age.

    Returns:
        the public key, 32 bytes.

    Raises:
        ArgumentTypeError: it is none, is damaged, or is of low order.
    """
    text = text.strip()
    if text.upper().startswith("AGE-SECRET-KEY-"):
        raise ArgumentTypeError("a private key; the public one that belongs to it begins with age1")
    shown = repr(text[:80])
    prefix, one, rest = text.rpartition("1")
    if not one or prefix != PREFIX:
        raise ArgumentTypeError(f"{shown} is no X25519 recipient of age: age1... expected")
    digits = [DIGITS.find(each) for each in rest]
    if -1 in digits or len(text) > 90 or _remainder(prefix, digits) != 1:
        raise ArgumentTypeError(f"{shown} was mistyped: its checksum is wrong")
    key = _bytes(digits[:-CHECKSUM])
    if key is None or len(key) != SIZE:
        raise ArgumentTypeError(f"{shown} is no X25519 recipient of age: it has not {SIZE} bytes")
    # X25519 leaves the top bit out.
    if int.from_bytes(key, "little") % (1 << 255) % PRIME in LOW_ORDER:
        raise ArgumentTypeError(f"{shown} is a point of low order: anybody could decrypt")
    return key


def _remainder(prefix: str, digits: list[int]) -> int:
    """Return the remainder of Bech32's code, 1 where the checksum is right."""
    left = [ord(each) >> 5 for each in prefix]
    right = [ord(each) & 31 for each in prefix]
    value = 1
    for digit in [*left, 0, *right, *digits]:
        top = value >> 25
        value = (value & 0x1FFFFFF) << 5 ^ digit
        for i, part in enumerate(GENERATOR):
            if top >> i & 1:
                value ^= part
    return value


def _bytes(digits: list[int]) -> bytes | None:
    """Return the bytes of digits of 5 bits, None where more than padding is left over."""
    value = 0
    for digit in digits:
        value = value << 5 | digit
    bits = 5 * len(digits)
    spare = bits % 8
    if spare >= 5 or value & (1 << spare) - 1:
        return None
    return (value >> spare).to_bytes(bits // 8, "big")
