"""Runs in the image: the ranges of the crashed kernel's RAM, and a check of some pages of each.

host-tests/boot/test_memory.py reads these lines.
"""

import hw
from pvfw import options
from pvfw.oldmem import OldMemory

PAGE = 4096
SAMPLES = 64


def main():
    try:
        region = hw.boot()[4]
        chosen = options.read(hw.boot(), ("dump",), ("halt", "poweroff", "reboot"))
        print("region", hex(region[0]), hex(region[1]))
        memory = OldMemory(chosen.elfcorehdr, region)
        print("problems", memory.problems)
        print("release", memory.info("OSRELEASE"))
        for area in memory.ranges():
            moved = area.paddr - area.source
            first, count = area.frames()
            print("range", hex(area.paddr), hex(area.size), hex(moved))
            for gfn in samples(first, count):
                print("page", hex(gfn * PAGE), hex(hw.crc32(hw.mem(gfn * PAGE, PAGE))))
        print("end", "")
    finally:
        hw.halt()


def samples(first, count):
    """Return the frames to look at: both ends, and some in between."""
    found = {first + i * (count - 1) // SAMPLES for i in range(SAMPLES + 1)}
    return sorted(found - {0})
