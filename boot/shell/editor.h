/* The line that is being typed at the PV console, and what is printed meanwhile. */
#ifndef PVDUMP_SHELL_EDITOR_H
#define PVDUMP_SHELL_EDITOR_H

#include "py/obj.h"

/* Has a line typed and edited. Returns the key that ended it, 0 for return. */
int editor_line(vstr_t *line, const char *prompt);

/* Runs a function of Python's while a key is waited for. What it prints stands above the line that
 * is being typed; where that is not the line editor's, `row` is what is shown of it, else 0. */
void editor_idle(mp_obj_t function, mp_obj_t row);

/* Writes to the console what a program prints. */
void editor_print(const char *text, size_t len);

#endif
