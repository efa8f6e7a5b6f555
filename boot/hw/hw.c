#include "hw.h"

#ifdef HW_HOST
uint64_t hw_base;
#endif

#define GTF_in_use ((uint16_t)(8 | 16)) /* GTF_reading | GTF_writing */

struct grant_entry_v1 {
    uint16_t flags;
    uint16_t domid;
    uint32_t frame;
};

struct grant_entry_v2 {
    uint16_t flags;
    uint16_t domid;
    uint32_t pad;
    uint64_t frame;
};

struct blkif_request_segment {
    uint32_t gref;
    uint8_t first_sect;
    uint8_t last_sect;
    uint16_t pad;
};

uint16_t hw_rd16(uint64_t addr)
{
    return *(volatile uint16_t *)hw_at(addr);
}

uint32_t hw_rd32(uint64_t addr)
{
    return *(volatile uint32_t *)hw_at(addr);
}

uint64_t hw_rd64(uint64_t addr)
{
    return *(volatile uint64_t *)hw_at(addr);
}

void hw_wr32(uint64_t addr, uint32_t value)
{
    *(volatile uint32_t *)hw_at(addr) = value;
}

/* x86 keeps loads in order and stores in order: only the compiler must be held. */
void hw_rmb(void)
{
    __asm__ volatile("" ::: "memory");
}

void hw_wmb(void)
{
    __asm__ volatile("" ::: "memory");
}

void hw_mb(void)
{
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
}

int hw_test_and_clear_bit(uint64_t addr, uint32_t nr)
{
    volatile uint64_t *word = (volatile uint64_t *)hw_at(addr) + nr / 64;
    uint64_t bit = 1ULL << (nr % 64);

    return (__atomic_fetch_and(word, ~bit, __ATOMIC_SEQ_CST) & bit) != 0;
}

/* Overlapping ranges are allowed, as with memmove. */
void hw_copy(uint64_t dst, uint64_t src, uint64_t len)
{
    __builtin_memmove(hw_at(dst), hw_at(src), len);
}

/* Grant gfn, gfn + 1, ... through the n entries named by the u32 array refs. */
void hw_grant_fill(uint64_t table, uint64_t refs, uint32_t n, uint16_t domid, uint32_t gfn,
                   uint16_t flags)
{
    volatile struct grant_entry_v1 *entry = hw_at(table);
    const uint32_t *ref = hw_at(refs);

    for (uint32_t i = 0; i < n; i++) {
        entry[ref[i]].domid = domid;
        entry[ref[i]].frame = gfn + i;
    }
    /* The flags make an entry valid, so they are written after its other fields. */
    hw_wmb();
    for (uint32_t i = 0; i < n; i++)
        entry[ref[i]].flags = flags;
}

void hw_grant_fill_v2(uint64_t table, uint64_t refs, uint32_t n, uint16_t domid, uint64_t gfn,
                      uint16_t flags)
{
    volatile struct grant_entry_v2 *entry = hw_at(table);
    const uint32_t *ref = hw_at(refs);

    for (uint32_t i = 0; i < n; i++) {
        entry[ref[i]].domid = domid;
        entry[ref[i]].frame = gfn + i;
    }
    /* As in hw_grant_fill. */
    hw_wmb();
    for (uint32_t i = 0; i < n; i++)
        entry[ref[i]].flags = flags;
}

/* Move the i-th reference, which is in use, to the front, behind the *busy that are there. */
static void set_aside(uint32_t *ref, uint32_t i, uint32_t *busy)
{
    uint32_t still = ref[i];

    ref[i] = ref[*busy];
    ref[(*busy)++] = still;
}

/* End access through the n entries. References that the peer still has mapped are moved to the
 * front of refs. Returns their number. */
uint32_t hw_grant_end(uint64_t table, uint64_t refs, uint32_t n)
{
    struct grant_entry_v1 *entry = hw_at(table);
    uint32_t *ref = hw_at(refs);
    uint32_t busy = 0;

    for (uint32_t i = 0; i < n; i++) {
        uint16_t *flags = &entry[ref[i]].flags;
        uint16_t seen = __atomic_load_n(flags, __ATOMIC_SEQ_CST);
        int ended = 0;

        while (!(seen & GTF_in_use) && !ended)
            ended = __atomic_compare_exchange_n(flags, &seen, 0, 0, __ATOMIC_SEQ_CST,
                                                __ATOMIC_SEQ_CST);
        if (!ended)
            set_aside(ref, i, &busy);
    }
    return busy;
}

/* Does the same for version 2, where status words apart from the entries show the peer's use. */
uint32_t hw_grant_end_v2(uint64_t table, uint64_t status, uint64_t refs, uint32_t n)
{
    volatile struct grant_entry_v2 *entry = hw_at(table);
    volatile uint16_t *in_use = hw_at(status);
    uint32_t *ref = hw_at(refs);
    uint32_t busy = 0;

    for (uint32_t i = 0; i < n; i++)
        entry[ref[i]].flags = 0;
    /* Xen sets the status, then reads the flags again: clear them before we read the status. */
    hw_mb();
    for (uint32_t i = 0; i < n; i++) {
        if (in_use[ref[i]] & GTF_in_use)
            set_aside(ref, i, &busy);
    }
    return busy;
}

/* Fill n segments of whole pages; first_sect begins the first one, last_sect ends the last one. */
void hw_seg_fill(uint64_t dst, uint64_t refs, uint32_t n, uint8_t first_sect, uint8_t last_sect)
{
    volatile struct blkif_request_segment *seg = hw_at(dst);
    const uint32_t *ref = hw_at(refs);

    for (uint32_t i = 0; i < n; i++) {
        seg[i].gref = ref[i];
        seg[i].first_sect = i == 0 ? first_sect : 0;
        seg[i].last_sect = i == n - 1 ? last_sect : 7;
    }
}
