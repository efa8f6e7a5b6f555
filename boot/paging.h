#ifndef PVDUMP_PAGING_H
#define PVDUMP_PAGING_H

#include <stdint.h>

uint64_t paging_build(uint64_t load);
void paging_seal(void);
int paging_fault(uint64_t addr, uint64_t error);
uint64_t paging_limit(void);

#endif
