/* MicroPython includes it; of it, it uses this much. */
#ifndef PVDUMP_STDLIB_H
#define PVDUMP_STDLIB_H

#include <alloca.h>
#include <stddef.h>

#endif
