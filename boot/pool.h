#ifndef PVDUMP_POOL_H
#define PVDUMP_POOL_H

#include <stdint.h>

uint64_t pool_take(uint64_t pages);

#endif
