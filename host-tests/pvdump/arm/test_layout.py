"""What the page filter is told of a kernel: for the lab's kernels what VMCOREINFO says of them."""

import pytest
from fixtures.btftypes import Types

from pvdump.arm import btf, layout

# Of a crash of each: VMCOREINFO as the kernel wrote it.
BOTH = """
SIZE(page)=64 SIZE(mem_section)=16 SIZE(zone)=1536 SIZE(free_area)=88 SIZE(list_head)=16
OFFSET(page.flags)=0 OFFSET(page._refcount)=52 OFFSET(page.mapping)=24 OFFSET(page.lru)=8
OFFSET(page._mapcount)=48 OFFSET(page.private)=40 OFFSET(page.compound_head)=8
OFFSET(mem_section.section_mem_map)=0 OFFSET(zone.free_area)=256 OFFSET(free_area.free_list)=0
OFFSET(list_head.next)=0 OFFSET(list_head.prev)=8 LENGTH(zone.free_area)=11
LENGTH(free_area.free_list)=5 NUMBER(NR_FREE_PAGES)=0 NUMBER(PG_swapcache)=10
"""
VMCOREINFO = {
    "bookworm": BOTH
    + """
OFFSET(page.compound_dtor)=16 OFFSET(page.compound_order)=17 OFFSET(zone.spanned_pages)=144
NUMBER(PG_lru)=4 NUMBER(PG_private)=13 NUMBER(PG_swapbacked)=19 NUMBER(PG_slab)=9
NUMBER(PG_head_mask)=65536 NUMBER(HUGETLB_PAGE_DTOR)=2
""",
    "trixie": BOTH
    + """
OFFSET(zone.spanned_pages)=160 NUMBER(PG_lru)=5 NUMBER(PG_private)=14 NUMBER(PG_swapbacked)=17
NUMBER(PG_hwpoison)=20 NUMBER(PG_head_mask)=64 NUMBER(PAGE_BUDDY_MAPCOUNT_VALUE)=-268435456
NUMBER(PAGE_SLAB_MAPCOUNT_VALUE)=-184549376 NUMBER(PAGE_HUGETLB_MAPCOUNT_VALUE)=-201326592
NUMBER(PAGE_OFFLINE_MAPCOUNT_VALUE)=-251658240
""",
}
# What VMCOREINFO has not.
BESIDES = {
    "bookworm": {
        "OFFSET(folio._flags_1)": 64,
        "OFFSET(folio._folio_dtor)": 80,
        "OFFSET(folio._folio_order)": 81,
    },
    "trixie": {
        "OFFSET(folio._flags_1)": 64,
        "NUMBER(PAGE_UNACCEPTED_MAPCOUNT_VALUE)": -150994944,
        "NUMBER(PAGE_TABLE_MAPCOUNT_VALUE)": -234881024,
    },
}


@pytest.mark.parametrize("suite", VMCOREINFO)
def test_facts_of_a_kernel_are_those_of_its_vmcoreinfo(kernel_types, suite: str) -> None:
    found = layout.facts(btf.Btf(kernel_types(suite), layout.NAMES))
    words = (word.split("=") for word in VMCOREINFO[suite].split())
    assert found == {**{name: int(value) for name, value in words}, **BESIDES[suite]}


def facts(types: Types) -> dict[str, int]:
    return layout.facts(btf.Btf(types.encode(), layout.NAMES))


def test_a_kernel_without_any_of_the_types_has_no_facts() -> None:
    assert facts(Types()) == {}


@pytest.mark.parametrize("change", ["size", "bit-field", "bits"])
def test_a_field_in_another_form_is_no_fact(change: str) -> None:
    types = Types()
    number = types.integer("long", 4 if change == "size" else 8)
    bits, width = {"bit-field": (64, 3), "bits": (65, 0)}.get(change, (64, 0))
    types.struct("page", 64, [("flags", number, bits, width)], flag=True)
    assert facts(types) == {"SIZE(page)": 64}


@pytest.mark.parametrize("value", [0x7F, 0x100, 0xF0000000, -16])
def test_a_page_type_in_another_form_is_no_fact(value: int) -> None:
    types = Types()
    types.enum("pagetype", {"PGTY_buddy": value, "PGTY_slab": 0xF5}, flag=True)
    assert facts(types) == {"NUMBER(PAGE_SLAB_MAPCOUNT_VALUE)": -184549376}


@pytest.mark.parametrize("value", [-1, 64, 1 << 30])
def test_a_flag_that_no_word_has_is_no_mask(value: int) -> None:
    types = Types()
    types.enum("pageflags", {"PG_head": value}, flag=True)
    assert facts(types) == {}
