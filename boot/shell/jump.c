/*
 * The jump into a kernel, by the 64-bit entry of a bzImage. modboot.c calls it for Python, which has
 * handed everything back before.
 *
 * Rule: the kernel finds the first 4 GiB mapped to themselves, a GDT with its two segments,
 * interrupts off, and rsi at boot_params. Our text stays mapped at VIRT until it makes its own
 * tables, so the step into it needs no trampoline.
 * Source: Linux Documentation/arch/x86/boot.rst, "64-bit Boot Protocol".
 */
#include "boot/shell/jump.h"

#include "boot/layout.h"
#include "boot/paging.h"

#define BOOT_CS 0x10
#define BOOT_DS 0x18

static const uint64_t kernel_gdt[] __attribute__((aligned(8))) = {
    0,
    0,
    0x00af9b000000ffff, /* BOOT_CS: 64-bit, accessed */
    0x00cf93000000ffff, /* BOOT_DS */
};

void jump(uint64_t entry, uint64_t params)
{
    struct {
        uint16_t limit;
        uint64_t base;
    } __attribute__((packed)) gdtr = { sizeof(kernel_gdt) - 1, (uintptr_t)kernel_gdt };

    paging_open();
    __asm__ volatile("cli\n\t"
                     "cld\n\t"
                     "lgdt %[gdtr]\n\t"
                     "mov %[ds], %%ds\n\t"
                     "mov %[ds], %%es\n\t"
                     "mov %[ds], %%ss\n\t"
                     "mov %[zero], %%fs\n\t"
                     "mov %[zero], %%gs\n\t"
                     "push %[cs]\n\t"
                     "push %[entry]\n\t"
                     "lretq"
                     :
                     : [gdtr] "m"(gdtr), [ds] "r"(BOOT_DS), [zero] "r"(0),
                       [cs] "r"((uint64_t)BOOT_CS), [entry] "r"(entry), "S"(params)
                     : "memory");
    __builtin_unreachable();
}
