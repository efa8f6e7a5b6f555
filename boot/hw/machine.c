/*
 * hw: the functions of the module for the machine and Xen, which call the rest of boot/.
 *
 * Rule: the arguments of a hypercall are cut to 64 bits, because some of them are signed; all other
 * numbers are checked as number.h has it.
 */
#include <string.h>

#include "boot/console.h"
#include "boot/cpu.h"
#include "boot/hw/hw.h"
#include "boot/hw/modhw.h"
#include "boot/hw/number.h"
#include "boot/info.h"
#include "boot/layout.h"
#include "boot/pool.h"
#include "boot/xen.h"
#include "py/mperrno.h"
#include "py/runtime.h"

static mp_obj_t mod_hypercall(size_t n_args, const mp_obj_t *args)
{
    uint64_t raw[5] = { 0 };

    if (!xen_base())
        mp_raise_OSError(MP_ENODEV);
    for (size_t i = 1; i < n_args; i++)
        raw[i - 1] = mp_obj_get_int_truncated(args[i]);
    return mp_obj_new_int_from_ll(hypercall(u64(args[0]), raw));
}
MP_DEFINE_CONST_FUN_OBJ_VAR_BETWEEN(hypercall_obj, 1, 6, mod_hypercall);

static mp_obj_t mod_now(void)
{
    return from_u64(xen_now());
}
MP_DEFINE_CONST_FUN_OBJ_0(now_obj, mod_now);

static mp_obj_t mod_alloc_pages(mp_obj_t n_in)
{
    uint64_t n = u64(n_in);
    uint64_t addr = pool_take(n);

    if (!addr)
        mp_raise_msg_varg(&mp_type_MemoryError, MP_ERROR_TEXT("no %lu pages left in the pool"), n);
    return from_u64(addr);
}
MP_DEFINE_CONST_FUN_OBJ_1(alloc_pages_obj, mod_alloc_pages);

static mp_obj_t mod_free_pages(mp_obj_t addr, mp_obj_t n)
{
    if (!pool_give(u64(addr), u64(n)))
        mp_raise_msg_varg(&mp_type_ValueError, MP_ERROR_TEXT("no taken pages at 0x%lx"), u64(addr));
    return mp_const_none;
}
MP_DEFINE_CONST_FUN_OBJ_2(free_pages_obj, mod_free_pages);

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
MP_DEFINE_CONST_FUN_OBJ_0(boot_obj, mod_boot);

static mp_obj_t mod_xen(void)
{
    return from_u64(xen_base());
}
MP_DEFINE_CONST_FUN_OBJ_0(xen_obj, mod_xen);

static mp_obj_t mod_vcpu(void)
{
    return from_u64(xen_vcpu());
}
MP_DEFINE_CONST_FUN_OBJ_0(vcpu_obj, mod_vcpu);

static mp_obj_t mod_shared_info(void)
{
    return from_u64(xen_shared_info());
}
MP_DEFINE_CONST_FUN_OBJ_0(shared_info_obj, mod_shared_info);

static mp_obj_t mod_watchdog(mp_obj_t seconds)
{
    xen_watchdog(bounded(seconds, UINT32_MAX));
    return mp_const_none;
}
MP_DEFINE_CONST_FUN_OBJ_1(watchdog_obj, mod_watchdog);

static mp_obj_t mod_suspend(void)
{
    int64_t result = xen_suspend();

    console_attach();
    xen_check();
    return mp_obj_new_int_from_ll(result);
}
MP_DEFINE_CONST_FUN_OBJ_0(suspend_obj, mod_suspend);

static mp_obj_t mod_console_flush(mp_obj_t ms)
{
    console_flush(bounded(ms, UINT32_MAX));
    return mp_const_none;
}
MP_DEFINE_CONST_FUN_OBJ_1(console_flush_obj, mod_console_flush);

static mp_obj_t mod_halt(void)
{
    cpu_halt();
}
MP_DEFINE_CONST_FUN_OBJ_0(halt_obj, mod_halt);

/* Fail on purpose, for tests: a page fault, an undefined instruction, or a loop for the
 * watchdog. */
static mp_obj_t mod_fault(mp_obj_t kind)
{
    qstr name = mp_obj_str_get_qstr(kind);

    if (name == MP_QSTR_page)
        hw_rd16(0);
    else if (name == MP_QSTR_ud)
        __asm__ volatile("ud2");
    else if (name == MP_QSTR_hang)
        for (;;)
            __asm__ volatile("pause");
    else
        mp_raise_ValueError(MP_ERROR_TEXT("fault: expected \"page\", \"ud\" or \"hang\""));
    return mp_const_none;
}
MP_DEFINE_CONST_FUN_OBJ_1(fault_obj, mod_fault);
