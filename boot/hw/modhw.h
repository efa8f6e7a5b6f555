/*
 * hw: the functions of the MicroPython module, which memory.c, pages.c, secrets.c and
 * machine.c define.
 *
 * Under CPython host/hw.py has the same functions; it and hw.h describe them.
 */
#ifndef PVDUMP_HW_MODHW_H
#define PVDUMP_HW_MODHW_H

#include "py/obj.h"

/* FIXED: functions with a fixed number of arguments; VAR: the others. clang-format would put each
 * on a line of its own. */
/* clang-format off */
#define HW_FUNCTIONS(FIXED, VAR)                                                        \
    FIXED(mem) FIXED(copy) FIXED(rd16) FIXED(rd32) FIXED(rd64) FIXED(wr32)              \
    FIXED(rmb) FIXED(wmb) FIXED(mb) FIXED(test_and_clear_bit)                           \
    VAR(grant_fill) FIXED(grant_end) VAR(grant_fill_v2) VAR(grant_end_v2) VAR(seg_fill) \
    VAR(crc32) VAR(pack)                                                                \
    VAR(classify) FIXED(run_end)                                                        \
    FIXED(x25519) VAR(seal) FIXED(entropy)                                              \
    VAR(hypercall) FIXED(now) FIXED(alloc_pages) FIXED(free_pages)                      \
    FIXED(boot) FIXED(xen) FIXED(vcpu) FIXED(shared_info)                               \
    FIXED(watchdog) FIXED(suspend) FIXED(console_flush) FIXED(halt) FIXED(fault)
/* In images with the shell. */
#ifdef IMAGE_SHELL
#define HW_SHELL_FUNCTIONS(FIXED)                                                       \
    FIXED(jump) FIXED(rsdp)                                                             \
    FIXED(blake2b_update) FIXED(blake2b_final) FIXED(ed25519_check)
#else
#define HW_SHELL_FUNCTIONS(FIXED)
#endif
/* clang-format on */

#define HW_FIXED(name) extern const mp_obj_fun_builtin_fixed_t name##_obj;
#define HW_VAR(name) extern const mp_obj_fun_builtin_var_t name##_obj;
HW_FUNCTIONS(HW_FIXED, HW_VAR)
HW_SHELL_FUNCTIONS(HW_FIXED)

#endif
