#ifndef PVDUMP_POOL_H
#define PVDUMP_POOL_H

#include <stdint.h>

/* Physical address of so many consecutive pages of zeroes, in the identity map for good and never
 * taken back; 0: there are not as many left, or none were asked for. */
uint64_t pool_take(uint64_t pages);

#endif
