/*
 * hw: the functions of the module for the dump's pages, which call crc32.c and pack.c on buffers of
 * Python's. Ranges and values are checked as number.h has it.
 */
#include "boot/hw/hw.h"
#include "boot/hw/modhw.h"
#include "boot/hw/number.h"
#include "boot/layout.h"
#include "py/runtime.h"

static mp_obj_t mod_crc32(size_t n_args, const mp_obj_t *args)
{
    uint32_t crc = n_args > 1 ? bounded(args[1], UINT32_MAX) : 0;
    mp_buffer_info_t data;

    mp_get_buffer_raise(args[0], &data, MP_BUFFER_READ);
    return from_u64(hw_crc32(crc, data.buf, data.len));
}
MP_DEFINE_CONST_FUN_OBJ_VAR_BETWEEN(crc32_obj, 1, 2, mod_crc32);

/* The fields of the state; host/hw.py describes them. */
struct state {
    uint64_t gfn;
    uint64_t count;
    uint64_t bit;
    uint64_t used;
    uint64_t entries;
};

static void check(const struct state *state, uint64_t bits, uint64_t out, uint64_t table)
{
    if (state->gfn > 1ULL << 32 || state->count > (1ULL << 32) - state->gfn)
        mp_raise_msg(&mp_type_OverflowError, MP_ERROR_TEXT("a frame's number has 32 bits"));
    physical(state->gfn * PAGE_SIZE, state->count * PAGE_SIZE);
    if (state->count > bits || state->bit > bits - state->count)
        mp_raise_ValueError(MP_ERROR_TEXT("pack: keep has no bits for all frames"));
    if (state->used > out || state->entries > table)
        mp_raise_ValueError(MP_ERROR_TEXT("pack: more used than there is"));
}

static mp_obj_t mod_pack(size_t n_args, const mp_obj_t *args)
{
    mp_buffer_info_t state, keep = { .buf = NULL }, out, table;
    uint64_t bits = UINT64_MAX;

    (void)n_args;
    mp_get_buffer_raise(args[0], &state, MP_BUFFER_RW);
    if (args[1] != mp_const_none) {
        mp_get_buffer_raise(args[1], &keep, MP_BUFFER_READ);
        bits = keep.len * 8;
    }
    mp_get_buffer_raise(args[2], &out, MP_BUFFER_RW);
    mp_get_buffer_raise(args[3], &table, MP_BUFFER_RW);
    if (state.len != sizeof(struct state) || (uintptr_t)state.buf % sizeof(uint64_t))
        mp_raise_ValueError(MP_ERROR_TEXT("pack: the state is not five numbers of 64 bits"));
    check(state.buf, bits, out.len, table.len / sizeof(uint64_t));
    hw_pack(state.buf, keep.buf, out.buf, out.len, table.buf, table.len);
    return mp_const_none;
}
MP_DEFINE_CONST_FUN_OBJ_VAR_BETWEEN(pack_obj, 4, 4, mod_pack);
