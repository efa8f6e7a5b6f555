/*
 * Puts a bzImage where the command line says and enters it as kexec does: module 0 is the bzImage,
 * "load=0x140001000 rest" the command line, "rest" what the bzImage gets. The memory behind the
 * body is filled with junk, since nobody promises that it is zero; behind that the module is put
 * once more, as the initrd, so that its address may be above 4 GiB too.
 */
#include <stdint.h>

#define HEADER 0x1f1
#define HEADER_END 0x280
#define JUNK 0xaa

struct hvm_start_info {
    uint32_t magic, version, flags, nr_modules;
    uint64_t modlist_paddr, cmdline_paddr, rsdp_paddr, memmap_paddr;
    uint32_t memmap_entries, reserved;
};

struct hvm_modlist_entry {
    uint64_t paddr, size, cmdline_paddr, reserved;
};

struct hvm_memmap_table_entry {
    uint64_t addr, size;
    uint32_t type, reserved;
};

void enter(void *boot_params, uint64_t entry) __attribute__((noreturn));
void load(const struct hvm_start_info *start);

static uint8_t boot_params[4096] __attribute__((aligned(4096)));

static void copy(volatile uint8_t *dst, const uint8_t *src, uint64_t len)
{
    for (uint64_t i = 0; i < len; i++)
        dst[i] = src[i];
}

static void put(unsigned int offset, uint64_t value, unsigned int bytes)
{
    copy(boot_params + offset, (const uint8_t *)&value, bytes);
}

static uint64_t get(const uint8_t *image, unsigned int offset, unsigned int bytes)
{
    uint64_t value = 0;

    copy((uint8_t *)&value, image + offset, bytes);
    return value;
}

static uint64_t parse_hex(const char **text)
{
    uint64_t value = 0;

    for (; **text && **text != ' '; (*text)++) {
        char c = **text;

        value = value * 16 + (c <= '9' ? c - '0' : c - 'a' + 10);
    }
    return value;
}

void load(const struct hvm_start_info *start)
{
    const struct hvm_modlist_entry *module = (const void *)start->modlist_paddr;
    const struct hvm_memmap_table_entry *range = (const void *)start->memmap_paddr;
    const uint8_t *image = (const uint8_t *)module->paddr;
    const char *text = (const char *)start->cmdline_paddr + sizeof("load=0x") - 1;
    uint64_t setup = (get(image, HEADER, 1) + 1) * 512;
    uint64_t body = module->size - setup;
    uint64_t target = parse_hex(&text);
    uint64_t cmdline = (uint64_t)text + 1;
    uint64_t size = get(image, 0x260, 4);
    uint64_t initrd = (target + size + 4095) / 4096 * 4096;

    copy((uint8_t *)target, image + setup, body);
    for (uint64_t i = body; i < size; i++)
        ((volatile uint8_t *)target)[i] = JUNK;
    copy((uint8_t *)initrd, image, module->size);

    copy(boot_params + HEADER, image + HEADER, HEADER_END - HEADER);
    put(0x228, cmdline, 4);
    put(0x0c8, cmdline >> 32, 4);
    put(0x218, initrd, 4);
    put(0x0c0, initrd >> 32, 4);
    put(0x21c, module->size, 4);
    put(0x1e8, start->memmap_entries, 1);
    for (uint32_t i = 0; i < start->memmap_entries; i++) {
        put(0x2d0 + 20 * i, range[i].addr, 8);
        put(0x2d0 + 20 * i + 8, range[i].size, 8);
        put(0x2d0 + 20 * i + 16, range[i].type, 4);
    }
    enter(boot_params, target + 0x200);
}
