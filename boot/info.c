/*
 * Copies the boot data of the loader (hvm_start_info or boot_params) into boot_info; called once by
 * boot_main, read by hw.boot().
 *
 * Rule: all data but the modules' content is copied, because the loader's pages may be reused
 * later. Counts and lengths are limited.
 * Source: xen/include/public/arch-x86/hvm/start_info.h; Linux
 * Documentation/arch/x86/{boot,zero-page}.rst.
 */
#include "info.h"

#include <string.h>

#include "layout.h"

#define START_MAGIC 0x336ec578

struct hvm_start_info {
    uint32_t magic, version, flags, nr_modules;
    uint64_t modlist_paddr, cmdline_paddr, rsdp_paddr;
    /* From version 1 on: */
    uint64_t memmap_paddr;
    uint32_t memmap_entries, reserved;
};

struct hvm_modlist_entry {
    uint64_t paddr, size, cmdline_paddr, reserved;
};

struct hvm_memmap_table_entry {
    uint64_t addr, size;
    uint32_t type, reserved;
};

/* Offsets into boot_params. */
#define EXT_RAMDISK_IMAGE 0x0c0
#define EXT_RAMDISK_SIZE 0x0c4
#define EXT_CMD_LINE_PTR 0x0c8
#define E820_ENTRIES 0x1e8
#define RAMDISK_IMAGE 0x218
#define RAMDISK_SIZE 0x21c
#define CMD_LINE_PTR 0x228
#define SETUP_DATA 0x250
#define E820_TABLE 0x2d0

#define E820_TABLE_MAX 128
#define SETUP_E820_EXT 1
#define SETUP_RNG_SEED 9  /* kexec_file_load adds it */
#define SETUP_DATA_MAX 64 /* entries of the list that we follow */

struct boot_e820_entry {
    uint64_t addr, size;
    uint32_t type;
} __attribute__((packed));

struct setup_data {
    uint64_t next;
    uint32_t type, len;
    union {
        struct boot_e820_entry e820[1];
        uint8_t seed[1];
    };
};

struct boot_info boot_info;

static void take_cmdline(uint64_t addr)
{
    const char *text = (const char *)addr;

    if (!addr)
        return;
    for (unsigned int i = 0; i < CMDLINE_SIZE - 1 && text[i]; i++)
        boot_info.cmdline[i] = text[i];
}

static void take_module(uint64_t addr, uint64_t len)
{
    /* Xen's ELF loader also lists modules that it has not loaded, with the address 0. */
    if (!addr || !len || boot_info.modules_nr == MODULES_MAX)
        return;
    boot_info.modules[boot_info.modules_nr++] = (struct boot_module){ addr, len };
}

static void take_range(uint64_t addr, uint64_t size, uint32_t type)
{
    if (boot_info.memmap_nr == MEMMAP_MAX)
        return;
    boot_info.memmap[boot_info.memmap_nr++] = (struct boot_range){ addr, size, type };
}

static void collect_pvh(uint64_t addr)
{
    const struct hvm_start_info *start = (const void *)addr;
    const struct hvm_modlist_entry *module;
    const struct hvm_memmap_table_entry *range;

    if (start->magic != START_MAGIC)
        return;
    take_cmdline(start->cmdline_paddr);
    boot_info.rsdp = start->rsdp_paddr;
    module = (const void *)start->modlist_paddr;
    for (uint32_t i = 0; i < start->nr_modules && i < MODULES_MAX; i++)
        take_module(module[i].paddr, module[i].size);
    if (start->version < 1)
        return;
    range = (const void *)start->memmap_paddr;
    for (uint32_t i = 0; i < start->memmap_entries && i < MEMMAP_MAX; i++)
        take_range(range[i].addr, range[i].size, range[i].type);
}

static uint64_t param64(const uint8_t *params, unsigned int low, unsigned int high)
{
    uint32_t part[2];

    memcpy(&part[0], params + low, 4);
    memcpy(&part[1], params + high, 4);
    return (uint64_t)part[1] << 32 | part[0];
}

static void take_e820(const struct boot_e820_entry *entry, uint32_t count)
{
    for (uint32_t i = 0; i < count && i < MEMMAP_MAX; i++)
        take_range(entry[i].addr, entry[i].size, entry[i].type);
}

static void take_seed(const uint8_t *seed, uint32_t len)
{
    boot_info.seed_len = len < SEED_MAX ? len : SEED_MAX;
    memcpy(boot_info.seed, seed, boot_info.seed_len);
}

static void collect_bzimage(uint64_t addr)
{
    const uint8_t *params = (const uint8_t *)addr;
    uint8_t entries = params[E820_ENTRIES];
    uint64_t next = param64(params, SETUP_DATA, SETUP_DATA + 4);

    take_cmdline(param64(params, CMD_LINE_PTR, EXT_CMD_LINE_PTR));
    take_module(param64(params, RAMDISK_IMAGE, EXT_RAMDISK_IMAGE),
                param64(params, RAMDISK_SIZE, EXT_RAMDISK_SIZE));
    take_e820((const void *)(params + E820_TABLE),
              entries < E820_TABLE_MAX ? entries : E820_TABLE_MAX);

    /* The rest of a memory map that is too long for boot_params is in the list of setup_data. */
    for (unsigned int i = 0; next && i < SETUP_DATA_MAX; i++) {
        const struct setup_data *data = (const void *)next;

        if (data->type == SETUP_E820_EXT)
            take_e820(data->e820, data->len / sizeof(struct boot_e820_entry));
        else if (data->type == SETUP_RNG_SEED)
            take_seed(data->seed, data->len);
        next = data->next;
    }
}

void info_collect(unsigned int door, uint64_t addr)
{
    boot_info.door = door;
    if (door == DOOR_PVH)
        collect_pvh(addr);
    else
        collect_bzimage(addr);
}
