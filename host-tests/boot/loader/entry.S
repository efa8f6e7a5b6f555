/*
 * A loader for the test of the 64-bit door: QEMU starts it through its PVH note, it goes into long
 * mode as kexec's purgatory leaves it - five levels where the CPU has them, global pages, and of
 * SMEP, SMAP and PCID what it has, since a kernel that panics has them on - and calls loader.c.
 */
#include "boot/layout.h"

#define CR4_PAE 0x20
#define CR4_PGE 0x80
#define CR4_LA57 0x1000
#define CR4_PCIDE 0x20000
#define CR4_SMEP 0x100000
#define CR4_SMAP 0x200000
#define MSR_EFER 0xc0000080
#define EFER_LME 0x100
#define CR0_PE_ET_NE_WP_PG 0x80010031

#define GIBS 8 /* mapped to themselves */

    .code32
    .text
    .globl loader_entry
loader_entry:
    cli
    cld
    mov $stack_top, %esp
    mov %ebx, %ebp

    movl $pml4 + 3, pml5
    movl $pdpt + 3, pml4
    mov $pd + 3, %eax
    xor %ecx, %ecx
1:  mov %eax, pdpt(, %ecx, 8)
    add $0x1000, %eax
    inc %ecx
    cmp $GIBS, %ecx
    jne 1b

    mov $0x183, %eax
    xor %edx, %edx
    xor %ecx, %ecx
1:  mov %eax, pd(, %ecx, 8)
    mov %edx, pd + 4(, %ecx, 8)
    add $0x200000, %eax
    adc $0, %edx
    inc %ecx
    cmp $GIBS * 512, %ecx
    jne 1b

    mov $7, %eax
    xor %ecx, %ecx
    cpuid
    mov $CR4_PAE, %eax
    mov $pml4, %edx
    bt $16, %ecx
    jnc 1f
    or $CR4_LA57, %eax
    mov $pml5, %edx
1:  mov %eax, %cr4
    mov %edx, %cr3
    mov $MSR_EFER, %ecx
    rdmsr
    or $EFER_LME, %eax
    wrmsr
    mov $CR0_PE_ET_NE_WP_PG, %eax
    mov %eax, %cr0
    lgdt gdtr
    ljmp $SEL_CODE, $1f

    .code64
1:  mov $SEL_DATA, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %ss

    mov %cr4, %rsi
    or $CR4_PGE, %rsi
    mov $7, %eax
    xor %ecx, %ecx
    cpuid
    bt $7, %ebx
    jnc 1f
    or $CR4_SMEP, %rsi
1:  bt $20, %ebx
    jnc 1f
    or $CR4_SMAP, %rsi
1:  mov $1, %eax
    cpuid
    bt $17, %ecx
    jnc 1f
    or $CR4_PCIDE, %rsi
1:  mov %rsi, %cr4
    mov %ebp, %edi
    call load
    ud2

/* void enter(void *boot_params, uint64_t entry) */
    .globl enter
enter:
    mov %rsi, %rax
    mov %rdi, %rsi
    jmp *%rax

    .data
gdtr:
    .word gdt_end - gdt - 1
    .long gdt
    .balign 8
gdt:
    .quad 0
    .quad 0x00af9b000000ffff
    .quad 0x00cf93000000ffff
gdt_end:

    .bss
    .balign 4096
pml5:
    .skip 4096
pml4:
    .skip 4096
pdpt:
    .skip 4096
pd:
    .skip 4096 * GIBS
    .skip 16384
stack_top:

    .section .note.Xen, "a", @note
    .long 4, 4, 18
    .asciz "Xen"
    .long loader_entry

    .section .note.GNU-stack, "", @progbits
