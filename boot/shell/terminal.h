/* What is typed at the PV console, for MicroPython's line editor, and Ctrl-C; scripts' modules. */
#ifndef PVDUMP_SHELL_TERMINAL_H
#define PVDUMP_SHELL_TERMINAL_H

#include "py/obj.h"

/* The text of the module at a path, such as "suite/case.py", or MP_OBJ_NULL. */
mp_obj_t terminal_module(const char *path);

/* Called by the interpreter's loop after some thousand branches. */
void terminal_poll(void);

#endif
