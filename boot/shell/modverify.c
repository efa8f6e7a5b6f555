/*
 * hw: the functions of the module for signatures, which call verify.c. Sizes are checked as
 * host/hw.py has it.
 */
#include "boot/hw/hw.h"
#include "boot/hw/modhw.h"
#include "py/obj.h"
#include "py/objstr.h"
#include "py/runtime.h"

#define KEY 32
#define SIGNATURE 64

static void *buffer(mp_obj_t obj, size_t size, mp_uint_t flags)
{
    mp_buffer_info_t found;

    mp_get_buffer_raise(obj, &found, flags);
    if (found.len != size)
        mp_raise_msg_varg(&mp_type_ValueError, MP_ERROR_TEXT("%lu bytes expected"), size);
    return found.buf;
}

static mp_obj_t mod_blake2b_update(mp_obj_t state_in, mp_obj_t piece_in)
{
    uint8_t *state = buffer(state_in, HW_BLAKE2B_STATE, MP_BUFFER_RW);
    mp_buffer_info_t piece;

    mp_get_buffer_raise(piece_in, &piece, MP_BUFFER_READ);
    hw_blake2b_update(state, piece.buf, piece.len);
    return mp_const_none;
}
MP_DEFINE_CONST_FUN_OBJ_2(blake2b_update_obj, mod_blake2b_update);

static mp_obj_t mod_blake2b_final(mp_obj_t state)
{
    uint8_t hash[HW_BLAKE2B_HASH];

    hw_blake2b_final(buffer(state, HW_BLAKE2B_STATE, MP_BUFFER_READ), hash);
    return mp_obj_new_bytes(hash, sizeof(hash));
}
MP_DEFINE_CONST_FUN_OBJ_1(blake2b_final_obj, mod_blake2b_final);

static mp_obj_t mod_ed25519_check(mp_obj_t signature, mp_obj_t key, mp_obj_t message_in)
{
    mp_buffer_info_t message;

    mp_get_buffer_raise(message_in, &message, MP_BUFFER_READ);
    return mp_obj_new_bool(hw_ed25519_check(buffer(signature, SIGNATURE, MP_BUFFER_READ),
                                            buffer(key, KEY, MP_BUFFER_READ), message.buf,
                                            message.len));
}
MP_DEFINE_CONST_FUN_OBJ_3(ed25519_check_obj, mod_ed25519_check);
