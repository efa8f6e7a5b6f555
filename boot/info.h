/* The loader's boot data, in one form for both entries. */
#ifndef PVDUMP_INFO_H
#define PVDUMP_INFO_H

#include <stdint.h>

#define CMDLINE_SIZE 2048
#define MODULES_MAX 8
#define MEMMAP_MAX 256
#define SEED_MAX 64

struct boot_module {
    uint64_t addr, len;
};

struct boot_range {
    uint64_t addr, size;
    uint32_t type; /* E820 numbers: 1 RAM, 2 reserved, 3 ACPI, ... */
};

struct boot_info {
    unsigned int door;
    char cmdline[CMDLINE_SIZE];
    unsigned int modules_nr, memmap_nr;
    struct boot_module modules[MODULES_MAX];
    struct boot_range memmap[MEMMAP_MAX];
    uint64_t rsdp; /* physical address of the ACPI tables' root, 0 where the loader gave none */
    uint32_t seed_len;
    uint8_t seed[SEED_MAX]; /* random bytes of the kernel that loaded us */
};

extern struct boot_info boot_info;

/* Copy the boot data at `addr` into boot_info. door: DOOR_PVH or DOOR_BZIMAGE. */
void info_collect(unsigned int door, uint64_t addr);

#endif
