/* MicroPython includes this file; its line editor alone uses something of it (boot/shell/hal.c). */
#ifndef PVDUMP_STDIO_H
#define PVDUMP_STDIO_H

#include <stddef.h>

int snprintf(char *to, size_t size, const char *format, ...);

#endif
