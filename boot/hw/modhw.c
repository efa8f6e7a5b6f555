/*
 * hw: the MicroPython module over hw.c and the rest of boot/. Under CPython host/hw.py has the same
 * functions; what each does is said there and in hw.h. Only the exception Trap is not there.
 *
 * Rule: a range that cannot be a physical one raises ValueError, so that a wild number from Python
 * never reaches the body, which lives above the identity map. What is within is Python's business,
 * but for the body's text and constants: paging.c has them read-only there too.
 * Rule: a value that does not fit its field, or is negative, raises OverflowError, as cffi does.
 * Only the arguments of a hypercall are cut to 64 bits, because some of them are signed.
 */
#include <string.h>

#include "boot/console.h"
#include "boot/cpu.h"
#include "boot/hw/hw.h"
#include "boot/info.h"
#include "boot/layout.h"
#include "boot/paging.h"
#include "boot/pool.h"
#include "boot/xen.h"
#include "py/mperrno.h"
#include "py/objarray.h"
#include "py/objint.h"
#include "py/runtime.h"

extern const mp_obj_type_t mp_type_Trap;

/* Returns 0 if the number is not one of 64 bits without sign. */
static int get_u64(mp_obj_t obj, uint64_t *value)
{
    if (mp_obj_is_exact_type(obj, &mp_type_int))
        return mpz_as_uint_checked(&((mp_obj_int_t *)MP_OBJ_TO_PTR(obj))->mpz, value);
    *value = mp_obj_get_int(obj);
    return *value <= INT64_MAX;
}

static uint64_t u64(mp_obj_t obj)
{
    uint64_t value;

    if (!get_u64(obj, &value))
        mp_raise_msg(&mp_type_OverflowError, MP_ERROR_TEXT("no number of 64 bits without sign"));
    return value;
}

static mp_obj_t from_u64(uint64_t value)
{
    return mp_obj_new_int_from_ull(value);
}

static uint64_t bounded(mp_obj_t obj, uint64_t most)
{
    uint64_t value = u64(obj);

    if (value > most)
        mp_raise_msg_varg(&mp_type_OverflowError, MP_ERROR_TEXT("0x%lx is more than 0x%lx"), value,
                          most);
    return value;
}

/* A length in bytes or a number of things: what does not fit is for range() to refuse. */
static uint64_t extent(mp_obj_t obj)
{
    uint64_t value;

    return get_u64(obj, &value) ? value : UINT64_MAX;
}

static uint64_t times(uint64_t n, uint64_t size)
{
    return n > UINT64_MAX / size ? UINT64_MAX : n * size;
}

static uint64_t range(mp_obj_t obj, uint64_t len)
{
    uint64_t addr = extent(obj);
    uint64_t limit = paging_limit();

    if (len > limit || addr > limit - len)
        mp_raise_msg_varg(&mp_type_ValueError,
                          MP_ERROR_TEXT("0x%lx bytes at 0x%lx: no physical address"), len, addr);
    return addr;
}

static mp_obj_t mod_mem(mp_obj_t addr_in, mp_obj_t len_in)
{
    uint64_t len = extent(len_in);
    uint64_t addr = range(addr_in, len);

    return mp_obj_new_memoryview('B' | MP_OBJ_ARRAY_TYPECODE_FLAG_RW, len, (void *)addr);
}
static MP_DEFINE_CONST_FUN_OBJ_2(mem_obj, mod_mem);

#define ACCESSORS(bits)                                                                            \
    static mp_obj_t mod_rd##bits(mp_obj_t addr)                                                    \
    {                                                                                              \
        return from_u64(hw_rd##bits(range(addr, bits / 8)));                                       \
    }                                                                                              \
    static MP_DEFINE_CONST_FUN_OBJ_1(rd##bits##_obj, mod_rd##bits);                                \
                                                                                                   \
    static mp_obj_t mod_wr##bits(mp_obj_t addr, mp_obj_t value)                                    \
    {                                                                                              \
        hw_wr##bits(range(addr, bits / 8), bounded(value, UINT##bits##_MAX));                      \
        return mp_const_none;                                                                      \
    }                                                                                              \
    static MP_DEFINE_CONST_FUN_OBJ_2(wr##bits##_obj, mod_wr##bits)

ACCESSORS(8);
ACCESSORS(16);
ACCESSORS(32);
ACCESSORS(64);

#define BARRIER(name)                                                                              \
    static mp_obj_t mod_##name(void)                                                               \
    {                                                                                              \
        hw_##name();                                                                               \
        return mp_const_none;                                                                      \
    }                                                                                              \
    static MP_DEFINE_CONST_FUN_OBJ_0(name##_obj, mod_##name)

BARRIER(rmb);
BARRIER(wmb);
BARRIER(mb);

static mp_obj_t mod_xchg32(mp_obj_t addr, mp_obj_t value)
{
    return from_u64(hw_xchg32(range(addr, 4), bounded(value, UINT32_MAX)));
}
static MP_DEFINE_CONST_FUN_OBJ_2(xchg32_obj, mod_xchg32);

static mp_obj_t mod_test_and_clear_bit(mp_obj_t addr, mp_obj_t nr_in)
{
    uint32_t nr = bounded(nr_in, UINT32_MAX);

    return mp_obj_new_bool(hw_test_and_clear_bit(range(addr, (nr / 64 + 1) * 8), nr));
}
static MP_DEFINE_CONST_FUN_OBJ_2(test_and_clear_bit_obj, mod_test_and_clear_bit);

static mp_obj_t mod_copy(mp_obj_t dst, mp_obj_t src, mp_obj_t len_in)
{
    uint64_t len = extent(len_in);

    hw_copy(range(dst, len), range(src, len), len);
    return mp_const_none;
}
static MP_DEFINE_CONST_FUN_OBJ_3(copy_obj, mod_copy);

static mp_obj_t mod_fill(mp_obj_t addr, mp_obj_t len_in, mp_obj_t byte)
{
    uint64_t len = extent(len_in);

    hw_fill(range(addr, len), len, bounded(byte, UINT8_MAX));
    return mp_const_none;
}
static MP_DEFINE_CONST_FUN_OBJ_3(fill_obj, mod_fill);

static mp_obj_t mod_zero_pages(mp_obj_t addr, mp_obj_t n_in)
{
    uint64_t n = extent(n_in);

    return from_u64(hw_zero_pages(range(addr, times(n, PAGE_SIZE)), n));
}
static MP_DEFINE_CONST_FUN_OBJ_2(zero_pages_obj, mod_zero_pages);

static mp_obj_t mod_grant_fill(size_t n_args, const mp_obj_t *args)
{
    uint64_t refs = range(args[1], times(extent(args[2]), 4));

    (void)n_args;
    hw_grant_fill(range(args[0], 8), refs, bounded(args[2], UINT32_MAX),
                  bounded(args[3], UINT16_MAX), bounded(args[4], UINT32_MAX),
                  bounded(args[5], UINT16_MAX));
    return mp_const_none;
}
static MP_DEFINE_CONST_FUN_OBJ_VAR_BETWEEN(grant_fill_obj, 6, 6, mod_grant_fill);

static mp_obj_t mod_grant_end(mp_obj_t table, mp_obj_t refs_in, mp_obj_t n)
{
    uint64_t refs = range(refs_in, times(extent(n), 4));

    return from_u64(hw_grant_end(range(table, 8), refs, bounded(n, UINT32_MAX)));
}
static MP_DEFINE_CONST_FUN_OBJ_3(grant_end_obj, mod_grant_end);

static mp_obj_t mod_grant_fill_v2(size_t n_args, const mp_obj_t *args)
{
    uint64_t refs = range(args[1], times(extent(args[2]), 4));

    (void)n_args;
    hw_grant_fill_v2(range(args[0], 16), refs, bounded(args[2], UINT32_MAX),
                     bounded(args[3], UINT16_MAX), u64(args[4]), bounded(args[5], UINT16_MAX));
    return mp_const_none;
}
static MP_DEFINE_CONST_FUN_OBJ_VAR_BETWEEN(grant_fill_v2_obj, 6, 6, mod_grant_fill_v2);

static mp_obj_t mod_grant_end_v2(size_t n_args, const mp_obj_t *args)
{
    uint64_t refs = range(args[2], times(extent(args[3]), 4));

    (void)n_args;
    return from_u64(
        hw_grant_end_v2(range(args[0], 16), range(args[1], 2), refs, bounded(args[3], UINT32_MAX)));
}
static MP_DEFINE_CONST_FUN_OBJ_VAR_BETWEEN(grant_end_v2_obj, 4, 4, mod_grant_end_v2);

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
static MP_DEFINE_CONST_FUN_OBJ_VAR_BETWEEN(seg_fill_obj, 5, 5, mod_seg_fill);

static mp_obj_t mod_hypercall(size_t n_args, const mp_obj_t *args)
{
    uint64_t raw[5] = { 0 };

    if (!xen_base())
        mp_raise_OSError(MP_ENODEV);
    for (size_t i = 1; i < n_args; i++)
        raw[i - 1] = mp_obj_get_int_truncated(args[i]);
    return mp_obj_new_int_from_ll(hypercall(u64(args[0]), raw));
}
static MP_DEFINE_CONST_FUN_OBJ_VAR_BETWEEN(hypercall_obj, 1, 6, mod_hypercall);

static mp_obj_t mod_cpuid(size_t n_args, const mp_obj_t *args)
{
    uint32_t regs[4];
    mp_obj_t items[4];

    cpuid(bounded(args[0], UINT32_MAX), n_args > 1 ? bounded(args[1], UINT32_MAX) : 0, regs);
    for (unsigned int i = 0; i < 4; i++)
        items[i] = from_u64(regs[i]);
    return mp_obj_new_tuple(4, items);
}
static MP_DEFINE_CONST_FUN_OBJ_VAR_BETWEEN(cpuid_obj, 1, 2, mod_cpuid);

static mp_obj_t mod_rdmsr(mp_obj_t msr)
{
    return from_u64(rdmsr(bounded(msr, UINT32_MAX)));
}
static MP_DEFINE_CONST_FUN_OBJ_1(rdmsr_obj, mod_rdmsr);

static mp_obj_t mod_wrmsr(mp_obj_t msr, mp_obj_t value)
{
    wrmsr(bounded(msr, UINT32_MAX), u64(value));
    return mp_const_none;
}
static MP_DEFINE_CONST_FUN_OBJ_2(wrmsr_obj, mod_wrmsr);

static mp_obj_t mod_now(void)
{
    return from_u64(xen_now());
}
static MP_DEFINE_CONST_FUN_OBJ_0(now_obj, mod_now);

static mp_obj_t mod_alloc_pages(mp_obj_t n_in)
{
    uint64_t n = u64(n_in);
    uint64_t addr = pool_take(n);

    if (!addr)
        mp_raise_msg_varg(&mp_type_MemoryError, MP_ERROR_TEXT("no %lu pages left in the pool"), n);
    return from_u64(addr);
}
static MP_DEFINE_CONST_FUN_OBJ_1(alloc_pages_obj, mod_alloc_pages);

static mp_obj_t pair(uint64_t a, uint64_t b)
{
    mp_obj_t items[2] = { from_u64(a), from_u64(b) };

    return mp_obj_new_tuple(2, items);
}

static mp_obj_t modules(void)
{
    mp_obj_t items[MODULES_MAX];

    for (unsigned int i = 0; i < boot_info.modules_nr; i++)
        items[i] = pair(boot_info.modules[i].addr, boot_info.modules[i].len);
    return mp_obj_new_tuple(boot_info.modules_nr, items);
}

static mp_obj_t memmap(void)
{
    mp_obj_t items[MEMMAP_MAX];

    for (unsigned int i = 0; i < boot_info.memmap_nr; i++) {
        const struct boot_range *range = &boot_info.memmap[i];
        mp_obj_t fields[3] = { from_u64(range->addr), from_u64(range->size),
                               from_u64(range->type) };

        items[i] = mp_obj_new_tuple(3, fields);
    }
    return mp_obj_new_tuple(boot_info.memmap_nr, items);
}

static mp_obj_t mod_boot(void)
{
    qstr door = boot_info.door == DOOR_PVH ? MP_QSTR_pvh : MP_QSTR_bzimage;
    mp_obj_t items[5] = {
        MP_OBJ_NEW_QSTR(door),
        mp_obj_new_bytes((const byte *)boot_info.cmdline, strlen(boot_info.cmdline)),
        modules(),
        memmap(),
        pair(phys(_start), phys(_end)),
    };

    return mp_obj_new_tuple(5, items);
}
static MP_DEFINE_CONST_FUN_OBJ_0(boot_obj, mod_boot);

static mp_obj_t mod_xen(void)
{
    return from_u64(xen_base());
}
static MP_DEFINE_CONST_FUN_OBJ_0(xen_obj, mod_xen);

static mp_obj_t mod_vcpu(void)
{
    return from_u64(xen_vcpu());
}
static MP_DEFINE_CONST_FUN_OBJ_0(vcpu_obj, mod_vcpu);

static mp_obj_t mod_shared_info(void)
{
    return from_u64(xen_shared_info());
}
static MP_DEFINE_CONST_FUN_OBJ_0(shared_info_obj, mod_shared_info);

static mp_obj_t mod_watchdog(mp_obj_t seconds)
{
    xen_watchdog(bounded(seconds, UINT32_MAX));
    return mp_const_none;
}
static MP_DEFINE_CONST_FUN_OBJ_1(watchdog_obj, mod_watchdog);

static mp_obj_t mod_console_flush(mp_obj_t ms)
{
    console_flush(bounded(ms, UINT32_MAX));
    return mp_const_none;
}
static MP_DEFINE_CONST_FUN_OBJ_1(console_flush_obj, mod_console_flush);

static mp_obj_t mod_halt(void)
{
    cpu_halt();
}
static MP_DEFINE_CONST_FUN_OBJ_0(halt_obj, mod_halt);

/* Fail on purpose, to see what comes of it: "page", "ud" or "hang" (for the watchdog). */
static mp_obj_t mod_fault(mp_obj_t kind)
{
    qstr name = mp_obj_str_get_qstr(kind);

    if (name == MP_QSTR_page)
        hw_rd8(0);
    else if (name == MP_QSTR_ud)
        __asm__ volatile("ud2");
    else if (name == MP_QSTR_hang)
        for (;;)
            __asm__ volatile("pause");
    else
        mp_raise_ValueError(MP_ERROR_TEXT("fault: expected \"page\", \"ud\" or \"hang\""));
    return mp_const_none;
}
static MP_DEFINE_CONST_FUN_OBJ_1(fault_obj, mod_fault);

#define FUNCTION(name) { MP_ROM_QSTR(MP_QSTR_##name), MP_ROM_PTR(&name##_obj) }

static const mp_rom_map_elem_t globals_table[] = {
    { MP_ROM_QSTR(MP_QSTR___name__), MP_ROM_QSTR(MP_QSTR_hw) },
    { MP_ROM_QSTR(MP_QSTR_Trap), MP_ROM_PTR(&mp_type_Trap) },
    FUNCTION(mem),
    FUNCTION(rd8),
    FUNCTION(rd16),
    FUNCTION(rd32),
    FUNCTION(rd64),
    FUNCTION(wr8),
    FUNCTION(wr16),
    FUNCTION(wr32),
    FUNCTION(wr64),
    FUNCTION(rmb),
    FUNCTION(wmb),
    FUNCTION(mb),
    FUNCTION(xchg32),
    FUNCTION(test_and_clear_bit),
    FUNCTION(copy),
    FUNCTION(fill),
    FUNCTION(zero_pages),
    FUNCTION(grant_fill),
    FUNCTION(grant_end),
    FUNCTION(grant_fill_v2),
    FUNCTION(grant_end_v2),
    FUNCTION(seg_fill),
    FUNCTION(hypercall),
    FUNCTION(cpuid),
    FUNCTION(rdmsr),
    FUNCTION(wrmsr),
    FUNCTION(now),
    FUNCTION(alloc_pages),
    FUNCTION(boot),
    FUNCTION(xen),
    FUNCTION(vcpu),
    FUNCTION(shared_info),
    FUNCTION(watchdog),
    FUNCTION(console_flush),
    FUNCTION(halt),
    FUNCTION(fault),
};
static MP_DEFINE_CONST_DICT(globals, globals_table);

const mp_obj_module_t mp_module_hw = {
    .base = { &mp_type_module },
    .globals = (mp_obj_dict_t *)&globals,
};

MP_REGISTER_MODULE(MP_QSTR_hw, mp_module_hw);
