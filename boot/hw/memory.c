/*
 * hw: the functions of the module for memory, which call hw.c: single accesses, barriers, copies,
 * grants and segments, and classify.c. Ranges and values are checked as number.h has it.
 */
#include "boot/hw/classify.h"
#include "boot/hw/hw.h"
#include "boot/hw/modhw.h"
#include "boot/hw/number.h"
#include "py/objarray.h"
#include "py/runtime.h"

static mp_obj_t mod_mem(mp_obj_t addr_in, mp_obj_t len_in)
{
    uint64_t len = extent(len_in);
    uint64_t addr = range(addr_in, len);

    return mp_obj_new_memoryview('B' | MP_OBJ_ARRAY_TYPECODE_FLAG_RW, len, (void *)addr);
}
MP_DEFINE_CONST_FUN_OBJ_2(mem_obj, mod_mem);

#define READ(bits)                                                                                 \
    static mp_obj_t mod_rd##bits(mp_obj_t addr)                                                    \
    {                                                                                              \
        return from_u64(hw_rd##bits(range(addr, bits / 8)));                                       \
    }                                                                                              \
    MP_DEFINE_CONST_FUN_OBJ_1(rd##bits##_obj, mod_rd##bits)

READ(16);
READ(32);
READ(64);

static mp_obj_t mod_wr32(mp_obj_t addr, mp_obj_t value)
{
    hw_wr32(range(addr, 4), bounded(value, UINT32_MAX));
    return mp_const_none;
}
MP_DEFINE_CONST_FUN_OBJ_2(wr32_obj, mod_wr32);

#define BARRIER(name)                                                                              \
    static mp_obj_t mod_##name(void)                                                               \
    {                                                                                              \
        hw_##name();                                                                               \
        return mp_const_none;                                                                      \
    }                                                                                              \
    MP_DEFINE_CONST_FUN_OBJ_0(name##_obj, mod_##name)

BARRIER(rmb);
BARRIER(wmb);
BARRIER(mb);

static mp_obj_t mod_test_and_clear_bit(mp_obj_t addr, mp_obj_t nr_in)
{
    uint32_t nr = bounded(nr_in, UINT32_MAX);

    return mp_obj_new_bool(hw_test_and_clear_bit(range(addr, (nr / 64 + 1) * 8), nr));
}
MP_DEFINE_CONST_FUN_OBJ_2(test_and_clear_bit_obj, mod_test_and_clear_bit);

static mp_obj_t mod_copy(mp_obj_t dst, mp_obj_t src, mp_obj_t len_in)
{
    uint64_t len = extent(len_in);

    hw_copy(range(dst, len), range(src, len), len);
    return mp_const_none;
}
MP_DEFINE_CONST_FUN_OBJ_3(copy_obj, mod_copy);

static mp_obj_t mod_grant_fill(size_t n_args, const mp_obj_t *args)
{
    uint64_t refs = range(args[1], times(extent(args[2]), 4));

    (void)n_args;
    hw_grant_fill(range(args[0], 8), refs, bounded(args[2], UINT32_MAX),
                  bounded(args[3], UINT16_MAX), bounded(args[4], UINT32_MAX),
                  bounded(args[5], UINT16_MAX));
    return mp_const_none;
}
MP_DEFINE_CONST_FUN_OBJ_VAR_BETWEEN(grant_fill_obj, 6, 6, mod_grant_fill);

static mp_obj_t mod_grant_end(mp_obj_t table, mp_obj_t refs_in, mp_obj_t n)
{
    uint64_t refs = range(refs_in, times(extent(n), 4));

    return from_u64(hw_grant_end(range(table, 8), refs, bounded(n, UINT32_MAX)));
}
MP_DEFINE_CONST_FUN_OBJ_3(grant_end_obj, mod_grant_end);

static mp_obj_t mod_grant_fill_v2(size_t n_args, const mp_obj_t *args)
{
    uint64_t refs = range(args[1], times(extent(args[2]), 4));

    (void)n_args;
    hw_grant_fill_v2(range(args[0], 16), refs, bounded(args[2], UINT32_MAX),
                     bounded(args[3], UINT16_MAX), u64(args[4]), bounded(args[5], UINT16_MAX));
    return mp_const_none;
}
MP_DEFINE_CONST_FUN_OBJ_VAR_BETWEEN(grant_fill_v2_obj, 6, 6, mod_grant_fill_v2);

static mp_obj_t mod_grant_end_v2(size_t n_args, const mp_obj_t *args)
{
    uint64_t refs = range(args[2], times(extent(args[3]), 4));

    (void)n_args;
    return from_u64(
        hw_grant_end_v2(range(args[0], 16), range(args[1], 2), refs, bounded(args[3], UINT32_MAX)));
}
MP_DEFINE_CONST_FUN_OBJ_VAR_BETWEEN(grant_end_v2_obj, 4, 4, mod_grant_end_v2);

static mp_obj_t mod_seg_fill(size_t n_args, const mp_obj_t *args)
{
    uint64_t n = extent(args[2]);
    uint64_t dst = range(args[0], times(n, 8));
    uint64_t refs = range(args[1], times(n, 4));

    (void)n_args;
    hw_seg_fill(dst, refs, bounded(args[2], UINT32_MAX), bounded(args[3], UINT8_MAX),
                bounded(args[4], UINT8_MAX));
    return mp_const_none;
}
MP_DEFINE_CONST_FUN_OBJ_VAR_BETWEEN(seg_fill_obj, 5, 5, mod_seg_fill);

static mp_obj_t mod_classify(size_t n_args, const mp_obj_t *args)
{
    uint64_t filter = range(args[0], sizeof(struct hw_filter));
    const struct hw_filter *f = (const struct hw_filter *)filter;
    uint64_t pfn = u64(args[2]);
    uint32_t n = bounded(args[3], UINT32_MAX);
    uint64_t keep = range(args[4], (f->end - f->base + 7) / 8);

    (void)n_args;
    if (pfn < f->base || pfn > f->end || n > f->end - pfn)
        mp_raise_ValueError(MP_ERROR_TEXT("the pages are not in the filter's window"));
    return from_u64(hw_classify(filter, range(args[1], times(n, f->size)), pfn, n, keep));
}
MP_DEFINE_CONST_FUN_OBJ_VAR_BETWEEN(classify_obj, 5, 5, mod_classify);

static mp_obj_t mod_run_end(mp_obj_t bits, mp_obj_t bit_in, mp_obj_t end_in)
{
    uint32_t end = bounded(end_in, UINT32_MAX - 8);
    uint32_t bit = bounded(bit_in, UINT32_MAX - 8);

    if (bit >= end)
        mp_raise_ValueError(MP_ERROR_TEXT("no bits there"));
    return from_u64(hw_run_end(range(bits, (end + 7) / 8), bit, end));
}
MP_DEFINE_CONST_FUN_OBJ_3(run_end_obj, mod_run_end);
