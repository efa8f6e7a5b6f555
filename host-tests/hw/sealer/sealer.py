"""Runs in the image: seals pieces, and tells what came of it.

host-tests/hw/test_sealer.py reads the lines, each a "=" and the pair of a name and a value.
"""

import binascii
import gc
import hashlib

from sealcases import COUNTERS, PIECES, REFUSED, outcome, piece, sealed

import hw

KEY, BASE = bytes(range(32)), bytes([9]) + bytes(31)


def tell(name, value):
    gc.collect()
    print("=", repr((name, value)))


def work():
    for size in PIECES:
        tell(size, binascii.crc32(sealed(KEY, 0, False, piece(size))))
    for counter in COUNTERS:
        tell(("counter", counter), sealed(KEY, counter, True, b"text"))
    public = hw.x25519(KEY, BASE)
    tell("public", public)
    tell("shared", hw.x25519(KEY, public))
    tell("sha256", [hashlib.sha256(piece(size)).digest() for size in PIECES])
    for name, case in REFUSED.items():
        tell(name, outcome(*case[:4]))
    tell("entropy", [hw.entropy(), hw.entropy()])


def main():
    try:
        work()
    finally:
        hw.halt()
