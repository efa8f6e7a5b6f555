#ifndef PVDUMP_POOL_H
#define PVDUMP_POOL_H

#include <stdint.h>

/* Physical address of so many consecutive pages of zeroes, in the identity map for good; 0: there
 * are not as many left, or none were asked for. */
uint64_t pool_take(uint64_t pages);

/* Take pages back, so that they are given again. Returns 0 where they are not taken pages. */
int pool_give(uint64_t addr, uint64_t pages);

#endif
