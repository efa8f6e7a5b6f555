#ifndef PVDUMP_POOL_H
#define PVDUMP_POOL_H

#include <stdint.h>

/* Take `pages` consecutive pages, filled with zeros, which stay in the identity map. Returns their
 * physical address, or 0 if there are not as many left or `pages` is 0. */
uint64_t pool_take(uint64_t pages);

/* Give pages back to the pool. Returns 0 if they are not pages taken from it. */
int pool_give(uint64_t addr, uint64_t pages);

#endif
