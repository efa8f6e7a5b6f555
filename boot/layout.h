/*
 * Addresses and selectors, for C and assembly.
 *
 * The body runs at VIRT, whatever its physical address. All physical memory is also mapped at its
 * own address (the identity map, paging.c). link.ld has the same numbers.
 */
#ifndef PVDUMP_LAYOUT_H
#define PVDUMP_LAYOUT_H

#define PAGE_SIZE 4096

#define VIRT 0xffffffff80000000
#define PHYS 0x100000

#define SEL_CODE 0x08
#define SEL_DATA 0x10
#define SEL_TSS 0x18

/* The entry that the loader used: the first argument of boot_main. */
#define DOOR_PVH 1
#define DOOR_BZIMAGE 2

#ifndef __ASSEMBLER__
#include <stdint.h>

#define __page_aligned __attribute__((aligned(PAGE_SIZE)))

/* Hidden, so that position-independent code does not use a table of their linked addresses. */
#pragma GCC visibility push(hidden)
extern char _start[], _text_end[], _rodata_start[], _rodata_end[], _end[];
extern char stack_guard[], stack_top[];

/* Xen fills this page with the code of the hypercalls (xen.c). */
extern char hypercall_page[PAGE_SIZE];

/* The physical address that _start was loaded at. */
extern uint64_t load_address;
#pragma GCC visibility pop

static inline uint64_t phys(const volatile void *p)
{
    return (uintptr_t)p - (uintptr_t)_start + load_address;
}
#endif

#endif
