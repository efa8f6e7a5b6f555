/*
 * hw: the functions of the module for booting a kernel.
 *
 * Rule: Python has handed back to Xen and to the backends what it used before it calls jump.
 */
#include "boot/hw/modhw.h"
#include "boot/hw/number.h"
#include "boot/info.h"
#include "boot/shell/jump.h"
#include "py/runtime.h"

#define JUMP_END (1ULL << 32)

static mp_obj_t mod_jump(mp_obj_t entry, mp_obj_t params)
{
    jump(bounded(entry, JUMP_END - 1), bounded(params, JUMP_END - 1));
}
MP_DEFINE_CONST_FUN_OBJ_2(jump_obj, mod_jump);

static mp_obj_t mod_rsdp(void)
{
    return from_u64(boot_info.rsdp);
}
MP_DEFINE_CONST_FUN_OBJ_0(rsdp_obj, mod_rsdp);
