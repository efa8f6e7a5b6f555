"""The page filter over synthetic crashed kernels: each era, level, page table, fact and damage."""

import random
import struct

import pytest
from fixtures.filledkernel import damage, filled
from fixtures.structpages import (
    DIRECT_MAP,
    ERAS,
    FILE,
    MIB,
    ORDERS,
    ROOTS,
    SECTION,
    SECTIONS,
    VMEMMAP,
    Kernel,
)

import hw

LEVELS = (0, 1, 2, 4, 8, 16, 31)
FREE, USER = 16, 8


def left_out(kernel, level, ranges=None, **facts):
    """The pfns that the filter leaves out, and the filter."""
    with hw.attached(kernel):
        pages = kernel.filter(level, **facts)
        found = set()
        for first, count in ranges or [(n * SECTION, SECTION) for n in kernel.sections]:
            at = first
            for pfn, n in pages.windows(first, count):
                assert pfn == at
                bits = bytes(hw.mem(pages.keep, (n + 7) // 8))
                found |= {pfn + i for i in range(n) if not bits[i // 8] >> i % 8 & 1}
                at += n
            assert at == first + count
        pages.left_out = dict(pages.counts())
        pages.close()
    return found, pages


@pytest.fixture(params=ERAS)
def every_era(request):
    return filled(request.param)


@pytest.mark.parametrize("level", LEVELS)
def test_a_level_leaves_out_its_classes_and_nothing_else(every_era, level):
    found, pages = left_out(every_era, level)
    assert found == every_era.expected(level)
    assert sum(pages.left_out.values()) == len(found)
    assert pages.unjudged == 0


def test_the_oracle_agrees_with_the_truth_where_nothing_is_damaged(every_era):
    for level in LEVELS:
        found = set().union(*(every_era.judge(level, *part) for part in every_era.filled()))
        assert found == every_era.expected(level)


def test_every_page_left_out_is_counted_by_its_class(every_era):
    _, pages = left_out(every_era, 31)
    truth = list(every_era.truth.values())
    assert pages.left_out == {name: truth.count(name) for name in pages.left_out}
    assert set(truth) <= set(pages.left_out)


@pytest.mark.parametrize("levels", [4, 5])
@pytest.mark.parametrize("leaf", [1, 2, 3])
def test_struct_pages_are_found_through_pages_of_each_size(levels, leaf):
    kernel = filled("6.12", levels=levels, leaf=leaf)
    assert left_out(kernel, 31)[0] == kernel.expected(31)


def test_ranges_that_begin_and_end_anywhere_are_judged_alike():
    kernel = filled()
    start, middle, end = SECTION + 3, 2 * SECTION + 1021, 2 * SECTION + 7777
    found, _ = left_out(kernel, 31, [(start, middle - start), (middle, end - middle)])
    # A block whose head is before the range is not known by its other pages.
    assert found <= kernel.expected(31)
    assert {pfn for pfn in kernel.expected(31) if start + 1024 <= pfn < end} <= found


def test_a_free_block_goes_on_in_the_next_range():
    kernel = Kernel()
    kernel.lay("free", SECTION, 10)
    ranges = [(SECTION, 100), (SECTION + 200, 50), (SECTION + 300, 2000)]
    found, pages = left_out(kernel, FREE, ranges)
    assert found == {
        *range(SECTION, SECTION + 100),
        *range(SECTION + 200, SECTION + 250),
        *range(SECTION + 300, SECTION + 1024),
    }
    assert pages.left_out["free"] == 100 + 50 + 724


def test_a_block_does_not_reach_back_into_a_range_that_is_judged_later():
    kernel = Kernel()
    kernel.lay("free", SECTION + 1024, 10)
    found, _ = left_out(kernel, FREE, [(SECTION + 1024, 8), (SECTION, 1024)])
    assert found == set(range(SECTION + 1024, SECTION + 1032))


def test_a_hugetlb_page_of_1_gib_goes_on_over_sections():
    kernel = Kernel("6.12", leaf=3)
    kernel.truth.clear()
    pfn = 2 * SECTION
    kernel.put(pfn, ("head",), mapcount=kernel.type("hugetlb"))
    kernel.tails(pfn, 15, huge=True)
    kernel.ram[kernel.at(pfn + 1)] = 16
    assert left_out(kernel, 31)[0] == set(range(pfn, 4 * SECTION))


def test_struct_pages_that_are_mapped_again_behind_a_hugetlb_page_go_with_it(every_era):
    kernel = every_era
    for first, end in kernel.filled():
        for pfn in range(first, end):
            kernel.put(pfn)
    pfn = SECTION + 512
    kernel.lay("hugetlb", pfn, 9)
    once = [bytes(kernel.ram[kernel.at(pfn + i) :][:64]) for i in range(64)]
    for i in range(64, 512):
        kernel.ram[kernel.at(pfn + i) : kernel.at(pfn + i) + 64] = once[i % 64]
    assert left_out(kernel, USER)[0] == set(range(pfn, pfn + 512))
    assert left_out(kernel, FREE)[0] == set()


def test_runs_are_those_of_the_frames_that_stay():
    kernel = filled()
    first, count = SECTION + 5, SECTION + 1000
    out, _ = left_out(kernel, 31, [(first, count)])
    with hw.attached(kernel):
        pages = kernel.filter(31)
        runs = list(pages.runs(first, count))
    assert all(n > 0 for _, n in runs)
    kept = [pfn for start, n in runs for pfn in range(start, start + n)]
    assert kept == [pfn for pfn in range(first, first + count) if pfn not in out]


def test_poisoned_tails_are_left_out_for_they_cannot_be_read():
    kernel = Kernel()
    kernel.lay("slab", SECTION, 3)
    kernel.set(SECTION + 5, "flags", 1 << kernel.era.flags["hwpoison"])
    assert left_out(kernel, 31)[0] == {SECTION + 5}


# Facts.


def without(kernel, *keys):
    return {key: text for key, text in kernel.info.items() if key not in keys}


NEEDED_BY_ALL = (
    "SIZE(page)",
    "OFFSET(page.flags)",
    "OFFSET(page.compound_head)",
    "SYMBOL(mem_section)",
    "LENGTH(mem_section)",
    "SIZE(mem_section)",
    "OFFSET(mem_section.section_mem_map)",
    "NUMBER(SECTION_SIZE_BITS)",
    "NUMBER(phys_base)",
)


@pytest.mark.parametrize("key", NEEDED_BY_ALL)
def test_without_what_every_page_needs_all_are_kept_and_it_is_said(key):
    kernel = filled()
    found, pages = left_out(kernel, 31, info=without(kernel, key))
    assert found == set()
    assert len(pages.kept) == 1
    assert pages.kept[0][0] == "all"
    assert key.split("(")[1] in pages.kept[0][1]


# Era, key, the classes kept without it, what of the truth then stays.
FACTS = [
    ("6.1", "OFFSET(page.mapping)", {"cache", "user"}, {"cache", "private cache", "user"}),
    ("6.1", "NUMBER(PG_lru)", {"cache"}, {"cache", "private cache"}),
    ("6.1", "NUMBER(PG_private)", {"cache"}, {"cache", "private cache"}),
    ("6.1", "NUMBER(PG_swapcache)", {"cache"}, {"cache", "private cache"}),
    ("6.1", "NUMBER(PG_swapbacked)", {"cache"}, {"cache", "private cache"}),
    ("6.1", "NUMBER(PG_slab)", {"user", "free", "offline"}, {"user", "free", "offline"}),
    ("6.1", "OFFSET(page._mapcount)", {"free", "offline"}, {"free", "offline"}),
    ("6.1", "OFFSET(page._refcount)", {"free"}, {"free"}),
    ("6.1", "OFFSET(page.private)", {"free"}, {"free"}),
    ("6.1", "LENGTH(zone.free_area)", {"free"}, {"free"}),
    ("6.1", "NUMBER(PAGE_BUDDY_MAPCOUNT_VALUE)", {"free"}, {"free"}),
    ("6.1", "NUMBER(PAGE_OFFLINE_MAPCOUNT_VALUE)", {"offline"}, {"offline"}),
    ("6.1", "NUMBER(PG_hwpoison)", {"poisoned"}, {"poisoned"}),
    ("6.1", "NUMBER(HUGETLB_PAGE_DTOR)", {"hugetlb"}, {"hugetlb"}),
    ("6.1", "OFFSET(page.compound_dtor)", {"hugetlb"}, {"hugetlb"}),
    ("6.1", "OFFSET(page.compound_order)", {"large"}, {"large"}),
    ("6.1", "NUMBER(PG_head_mask)", {"large", "hugetlb"}, {"large"}),
    ("6.6", "NUMBER(PG_hugetlb)", {"large", "hugetlb"}, {"large"}),
    ("6.10", "NUMBER(PAGE_SLAB_MAPCOUNT_VALUE)", {"user", "free", "offline"}, {"free", "offline"}),
    ("6.10", "NUMBER(PAGE_HUGETLB_MAPCOUNT_VALUE)", {"large", "hugetlb"}, {"large"}),
]


@pytest.mark.parametrize(("era", "key", "kept", "stays"), FACTS)
def test_a_class_whose_fact_is_missing_is_kept_and_said(era, key, kept, stays):
    kernel = filled(era)
    found, pages = left_out(kernel, 31, info=without(kernel, key))
    complete, whole = left_out(kernel, 31)
    assert {name for name, _ in pages.kept} - {name for name, _ in whole.kept} >= kept
    assert found < complete
    whole_classes = stays - {"large", "hugetlb"}
    assert not {kernel.truth[pfn] for pfn in found} & (whole_classes - {"user"})


def test_a_fact_of_either_source_suffices():
    kernel = filled("6.12")
    facts = {
        "NUMBER(PGTY_buddy)": 0xF0,
        "NUMBER(PGTY_slab)": 0xF5,
        "NUMBER(PG_head)": 6,
        "NUMBER(PG_lru)": 5,
        "OFFSET(page.mapping)": 24,
        **kernel.given,
    }
    hidden = [
        *("NUMBER(PAGE_BUDDY_MAPCOUNT_VALUE)", "NUMBER(PAGE_SLAB_MAPCOUNT_VALUE)"),
        *("NUMBER(PG_head_mask)", "NUMBER(PG_lru)", "OFFSET(page.mapping)"),
    ]
    found, pages = left_out(kernel, 31, info=without(kernel, *hidden), given=facts)
    assert found == kernel.expected(31)
    assert pages.kept == []


def test_without_a_configuration_what_vmcoreinfo_lacks_is_kept():
    kernel = filled("6.12")
    found, pages = left_out(kernel, 31, given={})
    assert [name for name, _ in pages.kept] == ["unaccepted"]
    assert kernel.expected(31) - found == {
        pfn for pfn, kind in kernel.truth.items() if kind == "unaccepted"
    }


@pytest.mark.parametrize(
    ("key", "value", "kept", "told"),
    [
        ("NUMBER(PG_lru)", 6, "cache", "PG_lru) is 5 in VMCOREINFO and 6 in the configuration"),
        ("NUMBER(PGTY_buddy)", 0xF1, "free", "4026531840 in VMCOREINFO and 4043309056"),
        ("OFFSET(page.mapping)", 16, "user", "is 24 in VMCOREINFO and 16"),
        ("NUMBER(PG_head)", 7, "large", "PG_head_mask) is 64 in VMCOREINFO and 128"),
        ("SIZE(page)", 128, "all", "is 64 in VMCOREINFO and 128"),
        ("NUMBER(PG_hugetlb)", 8, "hugetlb", "by more than one mark: type, flag"),
    ],
)
def test_a_class_on_which_the_sources_disagree_is_kept_and_both_values_are_said(
    key, value, kept, told
):
    kernel = filled("6.12")
    found, pages = left_out(kernel, 31, given={**kernel.given, key: value})
    assert told in dict(pages.kept)[kept]
    assert found < kernel.expected(31)


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("OFFSET(page.mapping)", "60"),
        ("OFFSET(page.mapping)", "25"),
        ("OFFSET(page._mapcount)", "62"),
        ("NUMBER(PG_lru)", "64"),
        ("NUMBER(PG_lru)", "-1"),
        ("NUMBER(PG_head_mask)", "3"),
        ("NUMBER(PAGE_BUDDY_MAPCOUNT_VALUE)", "-1"),
        ("NUMBER(PAGE_BUDDY_MAPCOUNT_VALUE)", "7"),
        ("LENGTH(zone.free_area)", "60"),
        ("OFFSET(page.compound_dtor)", "60"),
        ("NUMBER(HUGETLB_PAGE_DTOR)", "0"),
        ("SIZE(page)", "60"),
        ("SIZE(page)", "65536"),
        ("LENGTH(mem_section)", "0"),
        ("NUMBER(SECTION_SIZE_BITS)", "12"),
        ("OFFSET(mem_section.section_mem_map)", "12"),
    ],
)
def test_a_fact_that_cannot_be_is_none(key, text):
    kernel = filled()
    found, pages = left_out(kernel, 31, info={**kernel.info, key: text})
    assert any(key.split("(")[1][:-1].split(".")[-1] in why for _, why in pages.kept)
    assert found < kernel.expected(31)


@pytest.mark.parametrize("value", [-1, 64, 1 << 40])
@pytest.mark.parametrize("key", ["NUMBER(PG_head)", "NUMBER(PGTY_buddy)", "OFFSET(page.mapping)"])
def test_a_fact_of_the_configuration_that_cannot_be_is_none(key, value):
    kernel = filled("6.12")
    names = {"NUMBER(PG_head)": "PG_head_mask", "NUMBER(PGTY_buddy)": "PAGE_BUDDY_MAPCOUNT_VALUE"}
    hidden = f"NUMBER({names[key]})" if key in names else key
    found, pages = left_out(kernel, 31, info=without(kernel, hidden), given={key: value})
    assert any("cannot be" in why for _, why in pages.kept)
    assert found < kernel.expected(31)


@pytest.mark.parametrize("level", [0, 1])
def test_a_level_that_leaves_nothing_out_reads_nothing(level):
    kernel = Kernel()
    found, pages = left_out(kernel, level, info={})
    assert (found, pages.kept, pages.unjudged) == (set(), [], 0)


# Damage.


@pytest.mark.parametrize("order", [ORDERS, 63, 64, 1 << 40, (1 << 64) - 1])
def test_a_free_page_of_an_impossible_order_is_kept(order):
    kernel = Kernel()
    kernel.lay("free", SECTION, 3)
    kernel.set(SECTION, "private", order)
    assert left_out(kernel, 31)[0] == set()


def test_a_free_block_that_is_not_aligned_is_kept():
    kernel = Kernel()
    for pfn in range(SECTION + 8, SECTION + 24):
        kernel.put(pfn, refcount=0)
    kernel.set(SECTION + 8, "mapcount", kernel.type("buddy"))
    kernel.set(SECTION + 8, "private", 4)
    assert left_out(kernel, 31)[0] == set()


@pytest.mark.parametrize("true", range(10))
@pytest.mark.parametrize("behind", ["kernel", "free", "slab"])
def test_an_order_that_reaches_over_pages_in_use_or_other_blocks_is_not_believed(true, behind):
    kernel = Kernel()
    kernel.lay("free", SECTION, true)
    kernel.lay(behind, SECTION + (1 << true), true)
    kernel.truth = {pfn: kind for pfn, kind in kernel.truth.items() if pfn >> true & 1}
    kernel.set(SECTION, "private", 10)
    assert left_out(kernel, 31)[0] == kernel.expected(31)


@pytest.mark.parametrize("order", [10, 19, 64, 255])
def test_a_large_page_of_a_wrong_order_loses_its_head_alone(order):
    kernel = Kernel()
    kernel.put(SECTION, ("head", "lru"), mapping=FILE)
    kernel.tails(SECTION, 9)
    kernel.ram[kernel.at(SECTION + 1) + kernel.era.order_at] = order
    assert left_out(kernel, 31)[0] == {SECTION}


def test_a_large_page_beyond_1_gib_loses_its_head_alone():
    kernel = Kernel()
    pfn = 32 * SECTION
    kernel.put(pfn, ("head", "lru"), mapping=FILE)
    kernel.tails(pfn, 15)
    kernel.ram[kernel.at(pfn + 1) + kernel.era.order_at] = 19
    assert left_out(kernel, 31)[0] == {pfn}


def test_a_slab_page_that_looks_free_is_kept():
    kernel = Kernel()
    kernel.put(SECTION, ("slab",), mapcount=kernel.type("buddy"), refcount=0)
    assert left_out(kernel, 31)[0] == set()


def section(kernel, number, value):
    struct.pack_into("<Q", kernel.ram, SECTIONS + 16 * number, value)


@pytest.mark.parametrize("flags", [0, 1, 2, 3, 5, 6, 8])
def test_a_section_that_is_not_online_is_kept_and_counted(flags):
    kernel = filled()
    section(kernel, 2, VMEMMAP[4] | flags)
    found, pages = left_out(kernel, 31)
    assert found == {pfn for pfn in kernel.expected(31) if pfn // SECTION != 2}
    assert pages.unjudged == SECTION
    assert pages.why == f"section 2 is not online: 0x{VMEMMAP[4] | flags:x}"


@pytest.mark.parametrize(
    "va", [0, 1 << 47, DIRECT_MAP[4] + 64 * MIB, VMEMMAP[4] + 32 * SECTION * 64, 0xDEAD000000000100]
)
def test_a_section_whose_struct_pages_are_elsewhere_costs_only_itself(va):
    kernel = filled()
    section(kernel, 2, (va - 2 * SECTION * 64) % (1 << 64) & ~63 | 7)
    found, pages = left_out(kernel, 31)
    assert {pfn for pfn in found if pfn // SECTION != 2} == {
        pfn for pfn in kernel.expected(31) if pfn // SECTION != 2
    }
    assert pages.unjudged in (0, SECTION)


@pytest.mark.parametrize("root", [0, 1, 0xFFFFFFFFFFFFFFFF, DIRECT_MAP[4] + (64 << 20)])
def test_sections_that_are_nowhere_keep_all(root):
    kernel = filled()
    struct.pack_into("<Q", kernel.ram, ROOTS, root)
    found, pages = left_out(kernel, 31)
    assert found == set()
    assert pages.unjudged == 3 * SECTION


def test_frames_behind_the_last_section_are_kept():
    kernel = filled()
    assert left_out(kernel, 31, [((2048 * 256 - 1) * SECTION, 2 * SECTION)])[0] == set()


def test_a_struct_page_outside_of_ram_is_not_read():
    kernel = Kernel(leaf=1)
    for pfn in range(SECTION, 2 * SECTION):
        kernel.lay("file", pfn)
    # The last page of the section's struct pages.
    last = 2 * SECTION - 64
    kernel.map(VMEMMAP[4] + last * 64, 1 << 40, 1)
    found, pages = left_out(kernel, 31)
    assert found == set(range(SECTION, last))
    assert pages.unjudged == 64
    assert "0x10000000000 are not in RAM" in pages.why


@pytest.mark.fuzz("pagefilter")
def test_damaged_struct_pages_are_judged_as_the_rules_say(fuzz):
    for seed in fuzz.seeds(12):
        draw = random.Random(seed)
        kernel = filled(draw.choice(list(ERAS)))
        # A part, since the oracle is slow.
        first, end = draw.choice(list(kernel.filled()))
        damage(kernel, draw, range(first, end))
        first += draw.randrange(1000)
        level = draw.choice((2, 4, 8, 16, 31, draw.randrange(32)))
        found, _ = left_out(kernel, level, [(first, end - first)])
        assert found == kernel.judge(level, first, end)
        fuzz.done["pages judged"] += end - first


@pytest.mark.fuzz("pagefilter-walk")
def test_whatever_the_walk_meets_the_filter_ends_and_reads_ram_alone(fuzz):
    kernels = [filled("6.12", leaf=leaf, levels=levels) for leaf in (1, 2, 3) for levels in (4, 5)]
    for seed in fuzz.seeds(40):
        draw = random.Random(seed)
        kernel = draw.choice(kernels)
        before = bytes(kernel.ram[: 2 * MIB])
        for _ in range(draw.choice((1, 8, 500))):
            at = draw.choice(
                (draw.randrange(0x10000, 0x30000), ROOTS, SECTIONS + 16, SECTIONS + 32)
            )
            value = draw.choice((0, draw.getrandbits(64), draw.getrandbits(24), 1 << 40))
            (old,) = struct.unpack_from("<Q", kernel.ram, at)
            value = draw.choice((value, old ^ 1 << draw.randrange(64)))
            struct.pack_into("<Q", kernel.ram, at, value)
        info = dict(kernel.info)
        if draw.random() < 0.5:
            info[draw.choice(list(info))] = draw.choice(("0", "1", "64", "-129", "8", "ffff" * 4))
        given = dict(kernel.given)
        if draw.random() < 0.5:
            key = draw.choice(
                [*given, *(key for key in info if key[:2] in ("NU", "OF", "SI", "LE"))]
            )
            given[key] = draw.choice((-1, 0, 1, 8, 63, 64, 1 << 40, draw.getrandbits(64)))
        # Reads outside of the RAM are a ValueError, which no part of the filter catches.
        left_out(kernel, 31, [(SECTION, SECTION), (32 * SECTION, 100)], info=info, given=given)
        kernel.ram[: 2 * MIB] = before
        fuzz.done["kernels walked"] += 1
