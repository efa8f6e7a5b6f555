/*
 * Pages of guest-physical memory, compressed one by one for the dump.
 *
 * A page of zeros becomes a part of a run in the table, any other a zstd frame, or the page itself
 * if zstd does not make it smaller. zstd runs with the parameters of its level 1 but for tables that
 * fit 4 KiB of input.
 *
 * Rule: a page is copied first and only its copy is looked at, because the memory may change while
 * we read it, and zstd trusts its input to stay as it is.
 * Rule: no state is kept between calls but for what the caller holds. Whatever zstd refuses is
 * stored as it is.
 * Source: zstd.h, "Static context"; RFC 8878.
 */
#include <string.h>

#include "hw.h"

#define ZSTD_STATIC_LINKING_ONLY
#define ZSTD_DISABLE_DEPRECATE_WARNINGS /* ZSTD_compress_advanced is smaller than ZSTD_compress2 */
#include <zstd.h>

#define PAGE 4096

/* The table's entries: bits 0-15 size of the page's data, 0 for zeros; bits 16-31 for zeros the
 * pages behind the first; bits 32-63 the first page. */
#define ENTRY 8
#define SIZE_MASK 0xffffu
#define MORE_ONE (1ULL << 16)
#define MORE_MASK (0xffffULL << 16)
#define PFN_SHIFT 32

/* The caller's array; host/hw.py describes it. */
enum { GFN, COUNT, BIT, USED, ENTRIES };

/* ZSTD_estimateCCtxSize_usingCParams() of these parameters. */
#define WORKSPACE 49168

static const ZSTD_parameters parameters = {
    .cParams = { .windowLog = 12,
                 .chainLog = ZSTD_CHAINLOG_MIN,
                 .hashLog = 11,
                 .searchLog = ZSTD_SEARCHLOG_MIN,
                 .minMatch = 4,
                 .targetLength = 0,
                 .strategy = ZSTD_fast },
    .fParams = { .contentSizeFlag = 1, .checksumFlag = 0, .noDictIDFlag = 1 },
};

static uint64_t workspace[WORKSPACE / sizeof(uint64_t)];
static uint64_t page[PAGE / sizeof(uint64_t)];

static void go_on(uint64_t *state, uint64_t frames)
{
    state[GFN] += frames;
    state[COUNT] -= frames;
    state[BIT] += frames;
}

/* Go on to the next frame whose bit is set. Returns 0 if there is none. */
static int find(uint64_t *state, const uint8_t *keep)
{
    while (state[COUNT]) {
        uint64_t bit = state[BIT];
        uint8_t rest;

        if (!keep)
            return 1;
        rest = keep[bit / 8] >> bit % 8;
        if (rest & 1)
            return 1;
        if (rest || state[COUNT] < 8 - bit % 8)
            go_on(state, 1);
        else
            go_on(state, 8 - bit % 8);
    }
    return 0;
}

static int is_zero(void)
{
    for (unsigned int i = 0; i < PAGE / sizeof(*page); i++) {
        if (page[i])
            return 0;
    }
    return 1;
}

/* Add the page `gfn` to the run of zeros that ends the table. Returns 0 if there is none. */
static int extend_run(const uint64_t *state, uint8_t *table)
{
    uint64_t entry;
    uint8_t *last;

    if (!state[ENTRIES])
        return 0;
    last = table + (state[ENTRIES] - 1) * ENTRY;
    memcpy(&entry, last, ENTRY);
    if (entry & SIZE_MASK || (entry & MORE_MASK) == MORE_MASK)
        return 0;
    if ((entry >> PFN_SHIFT) + (entry & MORE_MASK) / MORE_ONE + 1 != state[GFN])
        return 0;
    entry += MORE_ONE;
    memcpy(last, &entry, ENTRY);
    return 1;
}

static uint64_t compress(ZSTD_CCtx *context, uint8_t *out)
{
    size_t size = ZSTD_compress_advanced(context, out, PAGE - 1, page, PAGE, NULL, 0, parameters);

    if (!ZSTD_isError(size))
        return size;
    memcpy(out, page, PAGE);
    return PAGE;
}

/* Pack frames until all are done or the next one might not fit. */
void hw_pack(uint64_t *state, const uint8_t *keep, uint8_t *out, uint64_t out_size, uint8_t *table,
             uint64_t table_size)
{
    ZSTD_CCtx *context = ZSTD_initStaticCCtx(workspace, sizeof(workspace));

    while (find(state, keep)) {
        uint64_t size = 0, entry;
        int zero;

        if (out_size - state[USED] < PAGE || table_size / ENTRY == state[ENTRIES])
            return;
        memcpy(page, (const void *)(uintptr_t)(hw_base + state[GFN] * PAGE), PAGE);
        /* From here on the compiler has to take the copy. */
        hw_rmb();
        zero = is_zero();
        if (!zero)
            size = compress(context, out + state[USED]);
        if (!zero || !extend_run(state, table)) {
            entry = state[GFN] << PFN_SHIFT | size;
            memcpy(table + state[ENTRIES]++ * ENTRY, &entry, ENTRY);
        }
        state[USED] += size;
        go_on(state, 1);
    }
}
