/* The part of <unistd.h> that MicroPython's streams use. */
#ifndef PVDUMP_UNISTD_H
#define PVDUMP_UNISTD_H

#include <stddef.h>

#define SEEK_SET 0
#define SEEK_CUR 1
#define SEEK_END 2

typedef long ssize_t;

#endif
