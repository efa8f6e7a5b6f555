/* The functions that MicroPython requires of a port and that are not in main.c: output, collection,
 * and a file system without files. */
#include "py/builtin.h"
#include "py/gc.h"
#include "py/lexer.h"
#include "py/mperrno.h"
#include "py/mphal.h"
#include "py/runtime.h"
#include "shared/runtime/gchelper.h"

#include "boot/console.h"
#include "boot/trap.h"

#ifndef IMAGE_SHELL
/* Writes the output of mp_plat_print, and so of print(). */
void mp_hal_stdout_tx_strn_cooked(const char *text, size_t len)
{
    console_write(text, len);
}
#endif

void gc_collect(void)
{
    gc_collect_start();
    gc_helper_collect_regs_and_stack();
    gc_collect_end();
}

#ifndef IMAGE_SHELL
mp_import_stat_t mp_import_stat(const char *path)
{
    (void)path;
    return MP_IMPORT_STAT_NO_EXIST;
}
#endif

static mp_obj_t no_open(size_t n_args, const mp_obj_t *args, mp_map_t *kwargs)
{
    (void)n_args;
    (void)args;
    (void)kwargs;
    mp_raise_OSError(MP_ENOENT);
}
MP_DEFINE_CONST_FUN_OBJ_KW(mp_builtin_open_obj, 1, no_open);

/* Called for an exception that is not caught. main.c catches all exceptions of Python, so this one
 * was raised while another was printed. */
void nlr_jump_fail(void *val)
{
    static int failing;

    if (!failing++)
        mp_obj_print_exception(&console_print, MP_OBJ_FROM_PTR(val));
    crash();
}
