#ifndef PVDUMP_PAGING_H
#define PVDUMP_PAGING_H

#include <stdint.h>

/* Build the page tables for a body loaded at `load`. Returns the value for CR3. */
uint64_t paging_build(uint64_t load);
/* Remove page 0 from the identity map and make the map not executable. */
void paging_seal(void);
/* Map the part of the identity map that a page fault asks for. Returns 0 if the fault is an
 * error. */
int paging_fault(uint64_t addr, uint64_t error);
/* Make the first 4 GiB of the identity map whole and executable, for a kernel to be entered. */
void paging_open(void);
/* Returns the end of the identity map: no physical address is at or above it. */
uint64_t paging_limit(void);

#endif
