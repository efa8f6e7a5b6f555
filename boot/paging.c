/*
 * Page tables. head.S calls paging_build on the loader's map, boot_main paging_seal, the page-fault
 * handler paging_fault.
 *
 * The body is mapped at VIRT with 4 KiB pages: text read-only and executable, constants read-only,
 * all else writable and not executable. The page below the stack is not mapped. The low half of the
 * address space is the identity map. Page faults fill it with 2 MiB pages, whose tables are a fixed
 * number: when all are used they are all emptied, and pages that are still needed fault again. So
 * the tables do not grow with the RAM. After paging_seal the identity map is not executable and has
 * no page 0 (where QEMU puts boot data).
 *
 * Rule: our own region is always in the identity map as well, because Xen copies the arguments of
 * hypercalls through these tables and does not deliver a page fault for a missing page. The parts
 * that are read-only at VIRT are read-only there too, so a wrong address from Python traps.
 * Rule: this file is compiled position-independent and keeps no pointers in data: it runs before
 * and after the switch to the linked address.
 * Source: AMD64 Architecture Programmer's Manual volume 2, 5.3; 5-level paging, Intel SDM 4.5.
 */
#include "paging.h"

#include "cpu.h"
#include "layout.h"

#define ENTRIES 512
#define PTE_P (1ULL << 0)
#define PTE_RW (1ULL << 1)
#define PTE_A_D (3ULL << 5)
#define PTE_PS (1ULL << 7)
#define PTE_NX (1ULL << 63)
#define PTE_ADDR 0x000ffffffffff000ULL
#define LARGE (1ULL << 21)

#define CR4_LA57 (1ULL << 12)

#define PF_PRESENT (1u << 0)
#define PF_INSTRUCTION (1u << 4)

#define HIGH_TABLES 2 /* 4 MiB of body; link.ld checks it */
#define LOW_TABLES 27 /* most of them map 1 GiB each */
#define OPEN_END (1ULL << 32)

typedef uint64_t table_t[ENTRIES];

static table_t root5 __page_aligned;
static table_t root4 __page_aligned;
static table_t high_pdpt __page_aligned;
static table_t high_pd __page_aligned;
static table_t high_pt[HIGH_TABLES] __page_aligned;
static table_t low_table[LOW_TABLES] __page_aligned;

static unsigned int levels;
static unsigned int low_used;
static int sealed;
static uint64_t limit;
uint64_t load_address;

static uint64_t *table_at(uint64_t entry)
{
    return (uint64_t *)((entry & PTE_ADDR) - load_address + (uintptr_t)_start);
}

static uint64_t *root(void)
{
    return levels == 5 ? root5 : root4;
}

static unsigned int index_of(uint64_t addr, unsigned int level)
{
    return (addr >> (12 + 9 * (level - 1))) % ENTRIES;
}

/* Returns the flags of the body's page at this offset; 0: it is not mapped. */
static uint64_t body_flags(uint64_t offset)
{
    const char *page = _start + offset;

    if (page < _text_end || page == hypercall_page)
        return PTE_P | PTE_A_D;
    if (page == stack_guard)
        return 0;
    if (page >= _rodata_start && page < _rodata_end)
        return PTE_P | PTE_A_D | PTE_NX;
    return PTE_P | PTE_RW | PTE_A_D | PTE_NX;
}

static void high_map(void)
{
    uint64_t size = _end - _start;
    uint64_t *pt = high_pt[0];

    for (uint64_t offset = 0; offset < size; offset += PAGE_SIZE) {
        uint64_t flags = body_flags(offset);

        pt[offset / PAGE_SIZE] = flags ? flags | (load_address + offset) : 0;
    }
    for (unsigned int i = 0; i < HIGH_TABLES; i++)
        high_pd[index_of(VIRT, 2) + i] = phys(high_pt[i]) | PTE_P | PTE_RW;
    high_pdpt[index_of(VIRT, 3)] = phys(high_pd) | PTE_P | PTE_RW;
    root4[index_of(VIRT, 4)] = phys(high_pdpt) | PTE_P | PTE_RW;
    root5[index_of(VIRT, 5)] = phys(root4) | PTE_P | PTE_RW;
}

static uint64_t *low_table_take(void)
{
    uint64_t *table;

    if (low_used == LOW_TABLES)
        return 0;
    table = low_table[low_used++];
    for (unsigned int i = 0; i < ENTRIES; i++)
        table[i] = 0;
    return table;
}

static uint64_t low_flags(uint64_t addr)
{
    uint64_t offset = addr - load_address;
    uint64_t writable = PTE_RW;

    if (offset < (uint64_t)(_end - _start))
        writable = body_flags(offset) & PTE_RW;
    return PTE_P | PTE_A_D | writable | (sealed ? PTE_NX : 0);
}

/* Returns whether the 2 MiB at `span` need 4 KiB pages: they have page 0 or a part of the body. */
static int is_mixed(uint64_t span)
{
    uint64_t end = load_address + (_end - _start);

    return !span || (span < end && span + LARGE > load_address);
}

/* Map the 2 MiB around addr to themselves. Returns 0 when all tables are used. */
static int low_map(uint64_t addr)
{
    uint64_t span = addr & ~(LARGE - 1);
    unsigned int leaf = is_mixed(span) ? 1 : 2;
    uint64_t *table = root();

    for (unsigned int level = levels; level > leaf; level--) {
        uint64_t *entry = &table[index_of(addr, level)];

        if (!(*entry & PTE_P)) {
            uint64_t *next = low_table_take();

            if (!next)
                return 0;
            *entry = phys(next) | PTE_P | PTE_RW;
        }
        table = table_at(*entry);
    }

    if (leaf == 2) {
        table[index_of(addr, 2)] = span | low_flags(span) | PTE_PS;
        return 1;
    }
    for (uint64_t page = span; page < span + LARGE; page += PAGE_SIZE) {
        if (page || !sealed)
            table[index_of(page, 1)] = page | low_flags(page);
    }
    return 1;
}

/* Empty the identity map except for our own region. */
static void low_reset(void)
{
    uint64_t *top = root();
    uint64_t end = load_address + (_end - _start);

    for (unsigned int i = 0; i < ENTRIES / 2; i++)
        top[i] = 0;
    low_used = 0;
    for (uint64_t addr = load_address & ~(LARGE - 1); addr < end; addr += LARGE)
        low_map(addr);
}

static uint64_t physical_limit(void)
{
    uint64_t half = 1ULL << (levels == 5 ? 56 : 47);
    uint64_t most;
    uint32_t regs[4];

    cpuid(0x80000000, 0, regs);
    if (regs[0] < 0x80000008)
        return 1ULL << 36;
    cpuid(0x80000008, 0, regs);
    most = 1ULL << (regs[0] & 0xff);
    return most < half ? most : half;
}

/* The identity map is executable at first, because head.S switches to these tables on it. */
uint64_t paging_build(uint64_t load)
{
    load_address = load;
    levels = read_cr4() & CR4_LA57 ? 5 : 4;
    limit = physical_limit();
    high_map();
    low_reset();
    return phys(root());
}

/* Called when the loader's data have been read. From now on a null pointer faults. */
void paging_seal(void)
{
    sealed = 1;
    low_reset();
    write_cr3(read_cr3());
}

uint64_t paging_limit(void)
{
    return limit;
}

int paging_fault(uint64_t addr, uint64_t error)
{
    if (error & (PF_PRESENT | PF_INSTRUCTION))
        return 0;
    if ((sealed && addr < PAGE_SIZE) || addr >= limit)
        return 0;
    if (low_map(addr))
        return 1;
    low_reset();
    write_cr3(read_cr3());
    return low_map(addr);
}

void paging_open(void)
{
    sealed = 0;
    low_reset();
    for (uint64_t addr = 0; addr < OPEN_END; addr += LARGE)
        low_map(addr);
    write_cr3(read_cr3());
}
