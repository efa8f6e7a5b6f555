"""Runs in the image: packs frames into memory that the test looks at.

The command line is nine numbers: frame, count, first bit; address and size of keep, size 0 for
none; the same of out and table. host-tests/hw/test_packer.py reads the lines, each a "=" and the
pair of a name and a value.
"""

import gc
from array import array

from packcases import REFUSED, outcome

import hw


def tell(name, value):
    print("=", repr((name, value)))


def pack(gfn, count, bit, *places):
    keep, out, table = (hw.mem(places[i], places[i + 1]) for i in (0, 2, 4))
    state = array("Q", [gfn, count, bit, 0, 0])
    before = gc.mem_alloc()
    hw.pack(state, keep if len(keep) else None, out, table)
    tell("allocated", gc.mem_alloc() - before)
    tell("state", list(state))
    tell("crc", (hw.crc32(out), hw.crc32(table[1:], hw.crc32(table[:1]))))


def main():
    try:
        pack(*[int(word) for word in hw.boot()[1].decode().split()])
        for name, (numbers, keep, _) in REFUSED.items():
            tell(name, outcome(numbers, keep))
    finally:
        hw.halt()
