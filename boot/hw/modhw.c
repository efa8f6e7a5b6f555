/*
 * hw: the MicroPython module, a table of the functions of memory.c, pages.c, secrets.c and machine.c.
 * CPython's hw has the same functions, but not the exception Trap.
 */
#include "boot/hw/modhw.h"

#include "py/runtime.h"

extern const mp_obj_type_t mp_type_Trap;

#define FUNCTION(name) { MP_ROM_QSTR(MP_QSTR_##name), MP_ROM_PTR(&name##_obj) },

static const mp_rom_map_elem_t globals_table[] = {
    { MP_ROM_QSTR(MP_QSTR___name__), MP_ROM_QSTR(MP_QSTR_hw) },
    { MP_ROM_QSTR(MP_QSTR_Trap), MP_ROM_PTR(&mp_type_Trap) },
    HW_FUNCTIONS(FUNCTION, FUNCTION) HW_SHELL_FUNCTIONS(FUNCTION)
};
static MP_DEFINE_CONST_DICT(globals, globals_table);

const mp_obj_module_t mp_module_hw = {
    .base = { &mp_type_module },
    .globals = (mp_obj_dict_t *)&globals,
};

MP_REGISTER_MODULE(MP_QSTR_hw, mp_module_hw);
