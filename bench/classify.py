"""`./build.py bench classify`: ns a page that the page filter's C takes, natively.

Struct pages of 4 GiB of RAM, as Linux 6.1 has them, are judged for level 31, those of 128 MiB in
one call, beside a mere copy of the same bytes. The rule: each mix is judged a few times and the
best time counts, since what else the machine does only adds.
"""

from __future__ import annotations

import random
import struct
import time
from collections.abc import Callable

from bench import figure
from tools import hwlib
from tools.progress import Display

SIZE = 64
SECTION = 32768  # pages
SECTIONS = 32
ROUNDS = 5
RAM = SIZE * SECTION * (SECTIONS + 2)
INFO = {
    "SIZE(page)": "64",
    "OFFSET(page.flags)": "0",
    "OFFSET(page.compound_head)": "8",
    "OFFSET(page.mapping)": "24",
    "OFFSET(page.private)": "40",
    "OFFSET(page._mapcount)": "48",
    "OFFSET(page._refcount)": "52",
    "OFFSET(page.compound_dtor)": "16",
    "OFFSET(page.compound_order)": "17",
    "LENGTH(zone.free_area)": "11",
    "NUMBER(PG_lru)": "4",
    "NUMBER(PG_slab)": "9",
    "NUMBER(PG_swapcache)": "10",
    "NUMBER(PG_private)": "13",
    "NUMBER(PG_swapbacked)": "19",
    "NUMBER(PG_head_mask)": "65536",
    "NUMBER(PAGE_BUDDY_MAPCOUNT_VALUE)": "-129",
    "NUMBER(HUGETLB_PAGE_DTOR)": "2",
    "NUMBER(PAGE_OFFLINE_MAPCOUNT_VALUE)": "-257",
}
KERNEL = struct.pack("<QQ8xQ8xQII8x", 0, 0, 0, 0, 0xFFFFFFFF, 1)
CACHE = struct.pack("<QQ8xQ8xQII8x", 1 << 4, 0, 0xFFFF888000001000, 0, 0xFFFFFFFF, 1)
ANON = struct.pack("<QQ8xQ8xQII8x", 1 << 4 | 1 << 19, 0, 0xFFFF888000001001, 0, 0, 1)
FREE = struct.pack("<QQ8xQ8xQII8x", 0, 0, 0, 10, 0xFFFFFF7F, 0)
INNER = struct.pack("<QQ8xQ8xQII8x", 0, 0, 0, 0, 0xFFFFFFFF, 0)
FREE_BLOCK = FREE + INNER * 1023
MIXES = {
    "pages in use": KERNEL * SECTION,
    "page cache": CACHE * SECTION,
    "pages of three kinds in any order": b"".join(
        random.Random(1).choices((KERNEL, CACHE, ANON), k=SECTION)
    ),
    "free blocks": FREE_BLOCK * (SECTION // 1024),
}


class Memory:
    """What stands for the RAM."""

    def __init__(self) -> None:
        self.ram = bytearray(RAM)


def run(progress: Display) -> None:
    """Measure each mix and print a line for each."""
    hwlib.install()
    import hw
    from pvfw.pagefacts import FIELDS, Facts, Layout
    from pvfw.pagefilter import FACTS_AT, FILTER_SIZE
    from pvfw.vmcoreinfo import Vmcoreinfo

    layout = Layout(Facts(Vmcoreinfo(lambda key: INFO.get(key, "")), {}), 31)
    memory = Memory()
    hw.attach(memory)
    first, state, keep = 0, SIZE * SECTION * SECTIONS, SIZE * SECTION * SECTIONS + 4096
    scratch = SIZE * SECTION * (SECTIONS + 1)

    def judge() -> None:
        memory.ram[state : state + FILTER_SIZE] = bytes(FILTER_SIZE)
        facts = [layout.fields[name] for name in FIELDS]
        struct.pack_into(f"<{len(facts)}Q", memory.ram, state + FACTS_AT, *facts)
        for number in range(SECTIONS):
            base = number * SECTION
            struct.pack_into("<3Q", memory.ram, state, base, base + SECTION, SIZE)
            hw.classify(state, first + base * SIZE, base, SECTION, keep)

    def copy() -> None:
        for number in range(SECTIONS):
            hw.copy(scratch, first + number * SECTION * SIZE, SECTION * SIZE)

    for name, pages in MIXES.items():
        memory.ram[: len(pages) * SECTIONS] = pages * SECTIONS
        with progress.stage(name):
            figure.show(f"classify {name}", best(judge), best(copy), "ns/page")


def best(work: Callable[[], None]) -> float:
    """Return the least ns a page of CPU time over some rounds."""
    times = []
    for _ in range(ROUNDS):
        before = time.process_time_ns()
        work()
        times.append(time.process_time_ns() - before)
    return min(times) / (SECTION * SECTIONS)
