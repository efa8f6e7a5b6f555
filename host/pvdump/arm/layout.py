"""What the page filter needs to know of the running kernel, as its BTF says it.

Used by `pvdump arm`; the facts go into the blob. They have the names that VMCOREINFO gives them, so
that the image can compare the two when the kernel has crashed. The rule: a fact that BTF lacks, or
has in a form that is not known here, is left out; the image then keeps the pages that it would
have told apart.
Source: Linux kernel/vmcore_info.c, include/linux/{mm_types,page-flags}.h.
"""

from __future__ import annotations

from .btf import Btf

SIZES = ("page", "mem_section", "zone", "free_area", "list_head")
# The members, and the bytes that the filter reads there; None for what it does not read.
OFFSETS = {
    "page.flags": 8,
    "page._refcount": 4,
    "page.mapping": 8,
    "page.lru": 16,
    "page._mapcount": 4,
    "page.private": 8,
    "page.compound_head": 8,
    "page.compound_info": 8,  # in place of compound_head, 7.1
    "page.compound_dtor": 1,  # up to 6.2, as compound_order
    "page.compound_order": 1,
    "folio._folio_dtor": 1,  # 6.3 to 6.5, as _folio_order
    "folio._folio_order": 1,
    "folio._flags_1": 8,  # has the order in its low byte where no other member has it
    "mem_section.section_mem_map": 8,
    "zone.free_area": None,
    "zone.spanned_pages": 8,
    "free_area.free_list": None,
    "list_head.next": 8,
    "list_head.prev": 8,
}
LENGTHS = ("zone.free_area", "free_area.free_list")
# Constants that VMCOREINFO has by their own names.
NUMBERS = {
    "PG_lru": "pageflags",
    "PG_private": "pageflags",
    "PG_swapcache": "pageflags",
    "PG_swapbacked": "pageflags",
    "PG_slab": "pageflags",  # up to 6.9
    "PG_hwpoison": "pageflags",
    "PG_hugetlb": "pageflags",  # 6.6 to 6.8
    "HUGETLB_PAGE_DTOR": "compound_dtor_id",  # up to 6.5
    "NR_FREE_PAGES": "zone_stat_item",
}
# Types of pages that stand in the top byte of _mapcount, from 6.12 on.
PAGE_TYPES = ("buddy", "slab", "hugetlb", "offline", "unaccepted", "table")

NAMES = {
    *SIZES,
    *(path.partition(".")[0] for path in OFFSETS),
    *NUMBERS.values(),
    "pagetype",
}


def facts(btf: Btf) -> dict[str, int]:
    """Return the facts that BTF has, by VMCOREINFO's names.

    Args:
        btf: with at least NAMES.

    Raises:
        BtfError: it is damaged.
    """
    found = {f"SIZE({name})": btf.size(name) for name in SIZES}
    for path, size in OFFSETS.items():
        field = btf.field(*path.split(".", 1))
        # A bit-field, or a field of another size, is not the one that the filter knows.
        if field and not field.width and field.bits % 8 == 0 and size in (None, field.size):
            found[f"OFFSET({path})"] = field.bits // 8
    for path in LENGTHS:
        field = btf.field(*path.split(".", 1))
        found[f"LENGTH({path})"] = field.length if field else None
    for name, enum in NUMBERS.items():
        found[f"NUMBER({name})"] = btf.value(enum, name)
    head = btf.value("pageflags", "PG_head")
    if head is not None and 0 <= head < 64:
        found["NUMBER(PG_head_mask)"] = 1 << head
    for name in PAGE_TYPES:
        kind = btf.value("pagetype", f"PGTY_{name}")
        # The top bit is set, and so the number, of 32 bits, negative.
        if kind is not None and 0x80 <= kind <= 0xFF:
            found[f"NUMBER(PAGE_{name.upper()}_MAPCOUNT_VALUE)"] = (kind << 24) - (1 << 32)
    return {name: value for name, value in found.items() if value is not None}
