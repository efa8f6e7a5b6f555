/*
 * The two entries of the body, called doors. Both lead to high_entry: long mode, our own page
 * tables, the body at its linked address, .bss clear, and a call of boot_main(door, info).
 *
 *   PVH       32-bit protected mode without paging, loaded at PHYS, ebx = hvm_start_info.
 *             Source: xen/include/public/arch-x86/hvm/start_info.h. Xen's tools use it for
 *             type="pvh" and firmware_override=, QEMU for -kernel.
 *   bzImage   64-bit entry at 0x200 of wherever we were loaded, rsi = boot_params, identity-mapped
 *             by the loader. Source: Linux Documentation/arch/x86/boot.rst, "64-bit Boot Protocol".
 *
 * Rule: before high_entry all addresses are relative to rip (in 32-bit code: LOW()).
 */
#include "config.h"
#include "layout.h"

#define LOW(symbol) ((symbol) - VIRT + PHYS)

#define CR0_PE_ET_NE_WP_PG 0x80010031
#define CR4_PAE 0x20
#define CR4_LA57 0x1000
#define MSR_EFER 0xc0000080
#define EFER_LME_NXE 0x900

#define BOOT_PARAMS_SCRATCH 0x1e4

#define EFI_UNSUPPORTED 0x8000000000000003

#define PTE_P_RW 0x3
#define PTE_P_RW_PS 0x83
#define EARLY_TABLES heap /* the heap is not in use yet */

    .section .head, "ax", @progbits

    /* A bzImage's 32-bit entry, which a loader may try although xloadflags does not offer it. No
     * stack is guaranteed, so the one word that is pushed goes into the scratch field of
     * boot_params. */
    .code32
    cli
    cld
    lea BOOT_PARAMS_SCRATCH + 4(%esi), %esp
    call 1f
1:  pop %esi
    add $hint - 1b, %esi
2:  lodsb
    test %al, %al
    jz 3f
    out %al, $0xe9
    jmp 2b
3:  hlt
    jmp 3b

    .globl pvh_entry
pvh_entry:
    cli
    cld
    mov %ebx, %ebp

    mov $LOW(_bss_start), %edi
    mov $LOW(_bss_end), %ecx
    sub %edi, %ecx
    shr $2, %ecx
    xor %eax, %eax
    rep stosl

    /* Map the first GiB to itself, just to get into long mode. */
    mov $LOW(EARLY_TABLES), %edi
    lea 0x1000 + PTE_P_RW(%edi), %eax
    mov %eax, (%edi)
    lea 0x2000 + PTE_P_RW(%edi), %eax
    mov %eax, 0x1000(%edi)
    mov $PTE_P_RW_PS, %eax
    xor %ecx, %ecx
1:  mov %eax, 0x2000(%edi, %ecx, 8)
    add $0x200000, %eax
    inc %ecx
    cmp $512, %ecx
    jne 1b

    mov $CR4_PAE, %eax
    mov %eax, %cr4
    mov %edi, %cr3
    mov $MSR_EFER, %ecx
    rdmsr
    or $EFER_LME_NXE, %eax
    wrmsr
    mov $CR0_PE_ET_NE_WP_PG, %eax
    mov %eax, %cr0
    lgdt LOW(gdtr_low)
    ljmp $SEL_CODE, $LOW(pvh_long)

    .code64
pvh_long:
    mov $DOOR_PVH, %r12d
    mov %ebp, %r13d
    jmp common

hint:
    .asciz "pvdump.bin has a 64-bit entry only: load it with kexec, or use pvdump.elf\n"

    /* The PE file's entry: the image is signed as one, and does not start from EFI. */
    .globl efi_entry
efi_entry:
    mov $EFI_UNSUPPORTED, %rax
    ret

    .org 0x200
    .globl bzimage_entry
bzimage_entry:
    cli
    cld
    mov $DOOR_BZIMAGE, %r12d
    mov %rsi, %r13

    lea _bss_start(%rip), %rdi
    lea _bss_end(%rip), %rcx
    sub %rdi, %rcx
    shr $3, %rcx
    xor %eax, %eax
    rep stosq

    /* Switch off all that the loader has switched on, except five levels: long mode forbids
     * that. */
    mov %cr4, %rax
    and $CR4_LA57, %eax
    or $CR4_PAE, %eax
    mov %rax, %cr4
    mov $MSR_EFER, %ecx
    rdmsr
    or $EFER_LME_NXE, %eax
    wrmsr
    mov $CR0_PE_ET_NE_WP_PG, %eax
    mov %rax, %cr0

common:
    lea stack_top(%rip), %rsp
    lea _start(%rip), %rdi
    call paging_build
    mov %rax, %cr3
    mov $high_entry, %rax
    jmp *%rax

high_entry:
    mov $stack_top, %rsp
    lgdt gdtr
    mov $SEL_DATA, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %ss
    xor %eax, %eax
    mov %eax, %fs
    mov %eax, %gs
    lldt %ax
    push $SEL_CODE
    push $1f
    lretq
1:  mov %r12d, %edi
    mov %r13, %rsi
    xor %ebp, %ebp
    call boot_main
    ud2

gdtr_low:
    .word gdt_end - gdt - 1
    .long LOW(gdt)
gdtr:
    .word gdt_end - gdt - 1
    .quad gdt

    .section .data.gdt, "aw", @progbits
    .balign 8
    .globl gdt
gdt:
    .quad 0
    .quad 0x00af9b000000ffff /* SEL_CODE: 64-bit, accessed, so that the CPU need not write */
    .quad 0x00cf93000000ffff /* SEL_DATA */
    .quad 0, 0               /* SEL_TSS: trap.c */
gdt_end:

    /* XEN_ELFNOTE_PHYS32_ENTRY. Source: xen/include/public/elfnote.h. */
    .section .note.Xen, "a", @note
    .balign 4
    .long 4, 8, 18
    .asciz "Xen"
    .quad LOW(pvh_entry)

    .section .bss.stack, "aw", @nobits
    .balign PAGE_SIZE
    .globl stack_guard
stack_guard:
    .skip PAGE_SIZE /* not mapped */
    .skip STACK_KIB * 1024
    .globl stack_top
stack_top:

    .section .note.GNU-stack, "", @progbits
