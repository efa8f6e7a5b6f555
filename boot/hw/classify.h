/*
 * classify: which pages of the crashed kernel are left out, by its struct pages.
 *
 * Rule: Python decides (firmware/pvfw/pagefilter.py). It finds where the struct pages are, and says
 * in a struct hw_filter at which offsets and by which values a class is known; a value that is 0 as
 * a mask, or HW_NONE as a type, fits no page, so that the class is kept.
 * Rule: struct pages may be damaged. No offset or number out of them is used before it is checked,
 * and none of them is followed out of the pages of a call.
 * Source: Linux include/linux/page-flags.h, mm_types.h; behaviour of makedumpfile 1.7.6.
 */
#ifndef PVDUMP_HW_CLASSIFY_H
#define PVDUMP_HW_CLASSIFY_H

#include <stdint.h>

#define HW_NONE (1ULL << 32)

enum hw_class {
    HW_KEPT,
    HW_CACHE,
    HW_CACHE_PRIVATE,
    HW_USER,
    HW_FREE,
    HW_UNACCEPTED,
    HW_POISONED,
    HW_OFFLINE,
    /* Kept at every level, told apart because a dump can have them first. */
    HW_SLAB,
    HW_TABLE,
    HW_CLASSES
};

/* All fields are u64: pagefilter.py packs them in this order. */
struct hw_filter {
    uint64_t base, end; /* the window: keep's first pfn, the one behind its last */
    uint64_t size;      /* bytes of struct page, a power of two from 64 on */

    /* The block that was met last, left out or of slab: [from, until), of which a part may follow. */
    uint64_t from, until, block;

    uint64_t flags, mapping, mapcount, private, compound, refcount; /* offsets in struct page */
    uint64_t head, lru, swapcache, private_flag, slab, poisoned;    /* masks of page.flags */
    uint64_t anon;                                                  /* mask of page.mapping */
    /* Values of page._mapcount as u32. */
    uint64_t buddy, unaccepted, slab_type, hugetlb, offline, table;
    uint64_t free_orders; /* orders of free blocks: 0 to one less */

    /* In the second struct page of a large page: its order, a byte at order_at unless
     * HW_NONE; a hugetlb page where (u64 at hugetlb_at & mask) == value, never with mask 0. */
    uint64_t order_at, hugetlb_at, hugetlb_mask, hugetlb_value;

    uint64_t drop; /* bit 1 << class: leave it out */
    uint64_t now;  /* bit 1 << class: of what is kept, what this walk is to have */
    uint64_t found[HW_CLASSES];
};

#endif
