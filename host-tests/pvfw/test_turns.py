"""The walks of the page filter: slab and page tables first, then the rest, each page in one."""

import random

import pytest
from fixtures.filledkernel import damage, filled
from fixtures.structpages import ERAS, SECTION, Kernel

import hw
from pvfw.pagefilter import ALL, FIRST, REST

LEVELS = (0, 1, 2, 8, 16, 31)
TABLE = {"NUMBER(PAGE_TABLE_MAPCOUNT_VALUE)": (0xF2 << 24) - (1 << 32)}
OLD_TABLE = {"NUMBER(PAGE_TABLE_MAPCOUNT_VALUE)": -513}


def walk(pages, ranges):
    """Return the pfns that a walk has, in order."""
    found = []
    for first, count in ranges:
        for pfn, number in pages.runs(first, count):
            found += range(pfn, pfn + number)
    return found


def walked(kernel, level, ranges=None, given=None):
    """Return (what ALL has, {turn: what it has}, the filter's counts after each)."""
    ranges = ranges or [(n * SECTION, SECTION) for n in kernel.sections]
    with hw.attached(kernel):
        pages = kernel.filter(level, given=given)
        pages.begin(ALL)
        everything = walk(pages, ranges)
        pages.counts_of_all = dict(pages.counts())
        pages.close()
        pages = kernel.filter(level, given=given)
        turns = {}
        counts = []
        for turn in pages.turns:
            pages.begin(turn)
            turns[turn] = walk(pages, ranges)
            counts.append(dict(pages.counts()))
        pages.close()
    return everything, turns, counts


def of_slab(kernel):
    """Return the pfns of slab, of single and large pages, and of the pages of page tables."""
    slab, tables = set(), set()
    for first, end in kernel.filled():
        pfn = first
        while pfn < end:
            mapcount = kernel.get(pfn, "mapcount")
            is_slab = mapcount == kernel.type("slab") or (
                "slab" in kernel.era.flags
                and kernel.get(pfn, "flags") >> kernel.era.flags["slab"] & 1
            )
            size = 1
            while pfn + size < end and kernel.get(pfn + size, "compound") & 1:
                size += 1
            if is_slab:
                slab |= set(range(pfn, pfn + size))
            elif mapcount == 0xFFFFFDFF:
                tables.add(pfn)
            pfn += size
    return slab, tables


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("era", ERAS)
def test_the_first_walk_has_slab_and_page_tables_and_the_rest_all_else(era, level):
    kernel = filled(era)
    slab, tables = of_slab(kernel)
    everything, turns, _ = walked(kernel, level, given={**kernel.given, **OLD_TABLE})
    first = slab | tables
    assert turns == {
        FIRST: [pfn for pfn in everything if pfn in first],
        REST: [pfn for pfn in everything if pfn not in first],
    }
    assert len(first) > 1000


def test_without_the_type_of_page_tables_they_come_with_the_rest():
    kernel = filled("6.1")
    slab, _ = of_slab(kernel)
    assert set(walked(kernel, 31)[1][FIRST]) == slab


@pytest.mark.parametrize("level", LEVELS)
def test_without_either_fact_there_is_one_walk(level):
    kernel = filled("6.1")
    del kernel.info["NUMBER(PG_slab)"]
    everything, turns, _ = walked(kernel, level)
    assert turns == {ALL: everything}


def test_a_poisoned_page_of_slab_is_left_out_of_both_walks():
    kernel = Kernel("6.12")
    pfn = SECTION + 64
    kernel.lay("slab", pfn, 3)
    kernel.set(pfn + 3, "flags", 1 << kernel.era.flags["hwpoison"])
    _, turns, _ = walked(kernel, 31)
    assert turns[FIRST] == [*range(pfn, pfn + 3), *range(pfn + 4, pfn + 8)]
    assert pfn + 3 not in turns[REST]


def test_a_slab_goes_on_in_the_next_range():
    kernel = Kernel("6.12")
    kernel.lay("slab", SECTION, 10)
    ranges = [(SECTION, 100), (SECTION + 200, 2000)]
    _, turns, _ = walked(kernel, 31, ranges)
    assert turns[FIRST] == [*range(SECTION, SECTION + 100), *range(SECTION + 200, SECTION + 1024)]


def test_ranges_that_come_in_any_order_have_each_page_in_one_walk():
    kernel = Kernel("6.12")
    kernel.lay("slab", SECTION, 3)
    everything, turns, _ = walked(kernel, 31, [(SECTION + 4, 4), (SECTION, 4)])
    assert sorted(turns[FIRST] + turns[REST]) == sorted(everything)


def test_pages_that_cannot_be_judged_are_the_rests():
    kernel = filled("6.12")
    lost = (kernel.sections[-1] + 1) * SECTION
    ranges = [(SECTION + 5, 100), (lost + 3, 1001), (lost + 2000, 9)]
    everything, turns, _ = walked(kernel, 31, ranges)
    assert set(range(lost + 3, lost + 1004)) <= set(turns[REST])
    assert sorted(turns[FIRST] + turns[REST]) == everything
    assert max(turns[FIRST]) < lost


def test_what_is_left_out_is_counted_in_one_walk_alone():
    kernel = filled("6.12")
    _, _, (before, after) = walked(kernel, 31)
    truth = list(kernel.truth.values())
    assert before == dict.fromkeys(before, 0)
    assert after == {name: truth.count(name) for name in after}


def test_the_survey_counts_what_the_walks_find_and_leaves_nothing_behind():
    kernel = filled("6.12")
    slab, tables = of_slab(kernel)
    ranges = [(n * SECTION, SECTION) for n in kernel.sections]
    with hw.attached(kernel):
        pages = kernel.filter(31, given={**kernel.given, **OLD_TABLE})
        found = dict(pages.survey(ranges))
        assert set(dict(pages.counts()).values()) == {0}
        pages.begin(ALL)
        walk(pages, ranges)
        counts = dict(pages.counts())
        pages.close()
    assert {name: found[name] for name in counts} == counts
    assert (found["slab"], found["page tables"]) == (len(slab), len(tables))


@pytest.mark.fuzz("pagefilter-turns")
def test_however_struct_pages_are_damaged_each_page_is_in_one_walk(fuzz):
    for seed in fuzz.seeds(30):
        draw = random.Random(seed)
        kernel = filled(draw.choice(list(ERAS)))
        first, end = draw.choice(list(kernel.filled()))
        damage(kernel, draw, range(first, end))
        middle = draw.randrange(first + 1, end)
        ranges = [(first, middle - first), (middle, end - middle)]
        given = {**kernel.given, **draw.choice(({}, OLD_TABLE, TABLE))}
        everything, turns, _ = walked(kernel, draw.choice((0, 2, 4, 8, 16, 31)), ranges, given)
        assert sorted(turns[FIRST] + turns[REST]) == everything
        fuzz.done["pages judged"] += end - first
