/*
 * The way from the entries in head.S to Python: boot_main sets the machine up, starts MicroPython
 * on its heap, and calls main() of the module that image.yaml names.
 *
 * Rule: main() must not return. If it does, or ends with an exception, the domain crashes with the
 * traceback on the console, so that an error never looks like a finished dump.
 */
#include <string.h>

#include "config.h"
#include "console.h"
#include "info.h"
#include "layout.h"
#include "paging.h"
#include "pool.h"
#include "py/cstack.h"
#include "py/gc.h"
#include "py/runtime.h"
#include "trap.h"
#include "xen.h"

void boot_main(unsigned int door, uint64_t info);

/* head.S also builds its first page tables in here. */
uint8_t heap[HEAP_KIB * 1024] __page_aligned;

static uint8_t pool[POOL_PAGES * PAGE_SIZE] __page_aligned;
static uint8_t pool_taken[POOL_PAGES];

uint64_t pool_take(uint64_t pages)
{
    uint64_t found = 0;

    for (uint64_t i = 0; pages && i < POOL_PAGES; i++) {
        found = pool_taken[i] ? 0 : found + 1;
        if (found == pages) {
            uint64_t first = i + 1 - pages;

            memset(pool_taken + first, 1, pages);
            memset(pool + first * PAGE_SIZE, 0, pages * PAGE_SIZE);
            return phys(pool + first * PAGE_SIZE);
        }
    }
    return 0;
}

int pool_give(uint64_t addr, uint64_t pages)
{
    uint64_t offset = addr - phys(pool), first = offset / PAGE_SIZE;

    if (offset % PAGE_SIZE || first >= POOL_PAGES || pages > POOL_PAGES - first)
        return 0;
    for (uint64_t i = 0; i < pages; i++) {
        if (!pool_taken[first + i])
            return 0;
    }
    memset(pool_taken + first, 0, pages);
    return 1;
}

static void run(void)
{
    /* Without a fromlist, import of a name with a dot returns the package, not the module. */
    mp_obj_t fromlist = mp_obj_new_tuple(1, (mp_obj_t[]){ MP_OBJ_NEW_QSTR(MP_QSTR_main) });
    mp_obj_t module = mp_import_name(qstr_from_str(ENTRY_MODULE), fromlist,
                                     MP_OBJ_NEW_SMALL_INT(0));

    mp_call_function_0(mp_load_attr(module, MP_QSTR_main));
}

static void python(void)
{
    nlr_buf_t nlr;

    mp_cstack_init_with_top(stack_top, STACK_KIB * 1024);
    gc_init(heap, heap + sizeof(heap));
    mp_init();
    trap_python();

    if (nlr_push(&nlr) == 0) {
        run();
        nlr_pop();
        mp_printf(&console_print, "pvdump: main() of " ENTRY_MODULE " returned\n");
    } else {
        mp_obj_print_exception(&console_print, MP_OBJ_FROM_PTR(nlr.ret_val));
    }
}

void boot_main(unsigned int door, uint64_t info)
{
    trap_init();
    xen_init();
    info_collect(door, info);
    paging_seal();
    console_attach();
    xen_check();
    python();
    crash();
}
