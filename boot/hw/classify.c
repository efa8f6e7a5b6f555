#include "hw.h"
#include "classify.h"

#define ANON 1           /* of page.mapping: PAGE_MAPPING_ANON */
#define TAIL 1           /* of page.compound_head, and of 7.1's compound_info */
#define LARGE_ORDERS 19u /* the largest page is one of 1 GiB */

_Static_assert(sizeof(struct hw_filter) == 42 * 8, "pagefilter.py and host/hw.py have its fields");

static uint64_t u64_at(const uint8_t *page, uint64_t offset)
{
    return *(const uint64_t *)(page + offset);
}

static uint64_t u32_at(const uint8_t *page, uint64_t offset)
{
    return *(const uint32_t *)(page + offset);
}

static int is_tail(const struct hw_filter *f, const uint8_t *page)
{
    return u64_at(page, f->compound) & TAIL;
}

static int is_slab(const struct hw_filter *f, uint64_t flags, uint64_t mapcount)
{
    return (flags & f->slab) || mapcount == f->slab_type;
}

static int is_hugetlb(const struct hw_filter *f, const uint8_t *page, uint64_t flags, uint32_t left)
{
    if (!(flags & f->head) || left < 2)
        return 0;
    if (u32_at(page, f->mapcount) == f->hugetlb)
        return 1;
    return f->hugetlb_mask &&
           (u64_at(page + f->size, f->hugetlb_at) & f->hugetlb_mask) == f->hugetlb_value;
}

/* Tell whether a free block of this order can begin at `page`, as far as the `left` pages show: a
 * page that is in use, or begins a free block itself, shows that the order is damaged. A wrong order
 * is met where the true block ends, at a power of two. */
static int is_block(const struct hw_filter *f, const uint8_t *page, uint64_t pfn, uint64_t order,
                    uint32_t left)
{
    if (order >= f->free_orders || pfn & ((1ULL << order) - 1))
        return 0;
    for (uint32_t i = 1; i < 1ULL << order && i < left; i *= 2) {
        const uint8_t *inner = page + i * f->size;

        if (u32_at(inner, f->refcount) || u32_at(inner, f->mapcount) == f->buddy ||
            is_tail(f, inner))
            return 0;
    }
    return 1;
}

/* Returns the order of the large page whose head is `page`; 0 for a single page, and where tails are
 * not where the order says. Behind a hugetlb page's first tails the same struct pages may be mapped
 * again, the head at each multiple of 64, so the pages looked at are those behind powers of two. */
static uint64_t large_order(const struct hw_filter *f, const uint8_t *page, uint64_t pfn,
                            uint64_t flags, uint32_t left)
{
    uint64_t order;

    if (!(flags & f->head) || f->order_at == HW_NONE || left < 2)
        return 0;
    order = page[f->size + f->order_at];
    if (order >= LARGE_ORDERS || pfn & ((1ULL << order) - 1) || !is_tail(f, page + f->size))
        return 0;
    for (uint64_t i = 3; i < 1ULL << order && i < left; i = 2 * i - 1) {
        if (!is_tail(f, page + i * f->size))
            return 0;
    }
    return order;
}

/* Tails go with their head; a poisoned one cannot be read. */
static enum hw_class classify_tail(const struct hw_filter *f, const uint8_t *page, uint64_t pfn)
{
    if (u64_at(page, f->flags) & f->poisoned)
        return HW_POISONED;
    if (f->block == HW_SLAB && f->from <= pfn && pfn < f->until)
        return HW_SLAB;
    return HW_KEPT;
}

/* Returns the class of a page, HW_KEPT for none of the others, and the order of its block. The order
 * of the checks is makedumpfile's. */
static enum hw_class classify(const struct hw_filter *f, const uint8_t *page, uint64_t pfn,
                              uint32_t left, uint64_t *order)
{
    uint64_t flags = u64_at(page, f->flags);
    uint64_t mapcount = u32_at(page, f->mapcount);
    enum hw_class found = HW_KEPT;

    *order = 0;
    if (is_tail(f, page))
        return classify_tail(f, page, pfn);
    if (mapcount == f->buddy && !is_slab(f, flags, mapcount)) {
        *order = u64_at(page, f->private);
        return is_block(f, page, pfn, *order, left) ? HW_FREE : HW_KEPT;
    }
    if (mapcount == f->unaccepted) {
        *order = f->free_orders - 1;
        return is_block(f, page, pfn, *order, left) ? HW_UNACCEPTED : HW_KEPT;
    }

    if (flags & f->lru || (f->swapcache && (flags & f->swapcache) == f->swapcache)) {
        if (!(u64_at(page, f->mapping) & ANON))
            found = flags & f->private_flag ? HW_CACHE_PRIVATE : HW_CACHE;
    }
    if (!(f->drop & 1ULL << found)) {
        if ((u64_at(page, f->mapping) & f->anon && !is_slab(f, flags, mapcount)) ||
            is_hugetlb(f, page, flags, left))
            found = HW_USER;
        else if (flags & f->poisoned)
            found = HW_POISONED;
        else if (is_slab(f, flags, mapcount))
            found = HW_SLAB;
        else if (mapcount == f->offline)
            found = HW_OFFLINE;
        else
            return mapcount == f->table ? HW_TABLE : HW_KEPT;
    }
    *order = large_order(f, page, pfn, flags, left);
    return found;
}

/* Clear the bits of the block's pages from pfn on, as far as the window goes. Returns the pfn behind
 * them. */
static uint64_t leave_out(struct hw_filter *f, uint64_t pfn, uint8_t *keep)
{
    uint64_t end = f->until < f->end ? f->until : f->end;

    f->found[f->block] += end - pfn;
    while (pfn < end) {
        uint64_t bit = pfn - f->base;

        if (bit % 8 == 0 && end - pfn >= 8) {
            keep[bit / 8] = 0;
            pfn += 8;
        } else {
            keep[bit / 8] &= ~(1u << bit % 8);
            pfn++;
        }
    }
    return end;
}

/* Note the block that begins at a page. Returns whether it is left out as a whole. */
static int is_dropped_block(struct hw_filter *f, uint64_t pfn, uint64_t order, enum hw_class found)
{
    f->from = pfn;
    f->until = pfn + (1ULL << order);
    f->block = found;
    return f->drop >> found & 1;
}

/* Judge the n pages from pfn on, whose struct pages are at `pages`, and clear the bits of those that
 * are left out in `keep`, which has a bit for each page of the window. The block that an earlier call
 * ended in comes first; n may be 0. Returns the first pfn that is not judged yet. */
uint64_t hw_classify(uint64_t filter, uint64_t pages, uint64_t pfn, uint32_t n, uint64_t keep)
{
    struct hw_filter *f = hw_at(filter);
    const uint8_t *first = hw_at(pages);
    uint8_t *bits = hw_at(keep);
    uint64_t at = pfn, end = pfn + n, size = f->size;
    /* What is left out must not depend on the walk: the walks share what is kept among them. */
    uint64_t has = f->now & ~f->drop;

    if (f->from <= at && at < f->until && f->drop & 1ULL << f->block)
        at = leave_out(f, at, bits);
    while (at < end) {
        const uint8_t *page = first + (at - pfn) * size;
        uint64_t order;
        enum hw_class found = classify(f, page, at, end - at, &order);

        if (order && is_dropped_block(f, at, order, found)) {
            at = leave_out(f, at, bits);
            continue;
        }
        f->found[found]++;
        if (!(has >> found & 1)) {
            uint64_t bit = at - f->base;

            bits[bit / 8] &= ~(1u << bit % 8);
        }
        at++;
    }
    return at;
}

/* Returns the first bit from `bit` on, of those before `end`, that differs from it; else end. */
uint32_t hw_run_end(uint64_t bits, uint32_t bit, uint32_t end)
{
    const uint8_t *bytes = hw_at(bits);
    int value = bytes[bit / 8] >> bit % 8 & 1;

    while (++bit < end) {
        if (bit % 8 == 0) {
            while (end - bit >= 8 && bytes[bit / 8] == (value ? 0xff : 0))
                bit += 8;
            if (bit == end)
                break;
        }
        if ((bytes[bit / 8] >> bit % 8 & 1) != value)
            break;
    }
    return bit;
}
