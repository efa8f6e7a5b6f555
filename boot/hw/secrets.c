/*
 * hw: the functions of the module for encryption, which call seal.c, and for randomness. Ranges and
 * values are checked as number.h has it.
 */
#include <string.h>

#include "boot/cpu.h"
#include "boot/hw/hw.h"
#include "boot/hw/modhw.h"
#include "boot/hw/number.h"
#include "boot/info.h"
#include "py/objstr.h"
#include "py/runtime.h"

#define KEY 32
#define TAG 16
#define PIECE_MAX 65536

#define CPUID_1_ECX_RDRAND (1u << 30)
#define DRAWS 8    /* numbers of 64 bits */
#define RETRIES 10 /* Source: Intel SDM 1, "RDRAND"; a CPU whose RDRAND fails longer is broken */

static const uint8_t *key(mp_obj_t obj)
{
    mp_buffer_info_t buffer;

    mp_get_buffer_raise(obj, &buffer, MP_BUFFER_READ);
    if (buffer.len != KEY)
        mp_raise_ValueError(MP_ERROR_TEXT("a key has 32 bytes"));
    return buffer.buf;
}

static mp_obj_t mod_x25519(mp_obj_t secret, mp_obj_t point)
{
    uint8_t shared[KEY];

    hw_x25519(shared, key(secret), key(point));
    return mp_obj_new_bytes(shared, sizeof(shared));
}
MP_DEFINE_CONST_FUN_OBJ_2(x25519_obj, mod_x25519);

static mp_obj_t mod_seal(size_t n_args, const mp_obj_t *args)
{
    const uint8_t *secret = key(args[0]);
    uint64_t counter = u64(args[1]);
    mp_buffer_info_t piece, out;

    (void)n_args;
    mp_get_buffer_raise(args[3], &piece, MP_BUFFER_READ);
    mp_get_buffer_raise(args[4], &out, MP_BUFFER_RW);
    if (piece.len > PIECE_MAX || out.len != piece.len + TAG)
        mp_raise_ValueError(MP_ERROR_TEXT("seal: a piece has 65536 bytes at most, out 16 more"));
    hw_seal(out.buf, secret, counter, mp_obj_is_true(args[2]), piece.buf, piece.len);
    return mp_const_none;
}
MP_DEFINE_CONST_FUN_OBJ_VAR_BETWEEN(seal_obj, 5, 5, mod_seal);

/* Returns 0 if the CPU gives no number. */
static int draw(uint64_t *number)
{
    for (int i = 0; i < RETRIES; i++) {
        uint8_t is_there;

        __asm__ volatile("rdrand %0; setc %1" : "=r"(*number), "=qm"(is_there)::"cc");
        if (is_there)
            return 1;
    }
    return 0;
}

static mp_obj_t mod_entropy(void)
{
    uint64_t numbers[DRAWS + 1] = { 0 };
    uint32_t regs[4];
    vstr_t all;

    cpuid(1, 0, regs);
    for (int i = 0; i < DRAWS && regs[2] & CPUID_1_ECX_RDRAND; i++) {
        if (!draw(&numbers[i]))
            break;
    }
    numbers[DRAWS] = rdtsc_ordered();
    vstr_init(&all, sizeof(numbers) + boot_info.seed_len);
    vstr_add_strn(&all, (const char *)numbers, sizeof(numbers));
    vstr_add_strn(&all, (const char *)boot_info.seed, boot_info.seed_len);
    return mp_obj_new_bytes_from_vstr(&all);
}
MP_DEFINE_CONST_FUN_OBJ_0(entropy_obj, mod_entropy);
