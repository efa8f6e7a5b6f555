/* The part of <stdlib.h> that MicroPython uses. */
#ifndef PVDUMP_STDLIB_H
#define PVDUMP_STDLIB_H

#include <alloca.h>
#include <stddef.h>

#endif
