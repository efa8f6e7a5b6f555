/*
 * The first 1024 bytes of pvdump.bin: the boot sector and one setup sector of a bzImage, before the
 * body. tools/image.py links it to a flat file and gives it body_paragraphs and body_init_size.
 *
 * Rule: only the 64-bit entry is offered (xloadflags). kexec_load and kexec_file_load use it, also
 * above 4 GiB and with five-level paging. The 16-bit entry prints that on port 0xE9 and stops.
 * Source: Linux Documentation/arch/x86/boot.rst; the checks of kexec-tools' kexec-bzImage64.c and
 * Linux' kexec-bzimage64.c.
 */
#define SETUP_SECTS 1

#define LOADED_HIGH 0x01

#define XLF_KERNEL_64 0x01
#define XLF_CAN_BE_LOADED_ABOVE_4G 0x02
#define XLF_5LEVEL 0x20

    .code16
    .section .setup, "ax", @progbits
    .globl setup
setup:
    .org 0x1f1
    .byte SETUP_SECTS
    .word 0                 /* root_flags */
    .long body_paragraphs   /* syssize */
    .word 0                 /* ram_size */
    .word 0xffff            /* vid_mode: normal */
    .word 0                 /* root_dev */
    .word 0xaa55            /* boot_flag */

    .byte 0xeb, header_end - 1f /* 0x200: jump; its second byte tells where the header ends */
1:  .ascii "HdrS"
    .word 0x020f            /* version 2.15 */
    .long 0                 /* realmode_swtch */
    .word 0                 /* start_sys_seg */
    .word 0                 /* kernel_version: none */
    .byte 0                 /* type_of_loader */
    .byte LOADED_HIGH
    .word 0                 /* setup_move_size */
    .long 0x100000          /* code32_start */
    .long 0                 /* ramdisk_image */
    .long 0                 /* ramdisk_size */
    .long 0                 /* bootsect_kludge */
    .word 0                 /* heap_end_ptr */
    .byte 0                 /* ext_loader_ver */
    .byte 0                 /* ext_loader_type */
    .long 0                 /* cmd_line_ptr */
    .long 0xffffffff        /* initrd_addr_max */
    .long 0x1000            /* kernel_alignment */
    .byte 1                 /* relocatable_kernel */
    .byte 12                /* min_alignment: 1 << 12 */
    .word XLF_KERNEL_64 | XLF_CAN_BE_LOADED_ABOVE_4G | XLF_5LEVEL
    .long 2047              /* cmdline_size: CMDLINE_SIZE of info.h, less the NUL */
    .long 0                 /* hardware_subarch: PC */
    .quad 0                 /* hardware_subarch_data */
    .long 0                 /* payload_offset: the body is not compressed */
    .long 0                 /* payload_length */
    .quad 0                 /* setup_data */
    .quad 0x100000          /* pref_address */
    .long body_init_size
    .long 0                 /* handover_offset */
    .long 0                 /* kernel_info_offset: none */
header_end:

    cli
    push %cs
    pop %ds
    cld
    call 1f
1:  pop %si
    add $message - 1b, %si
2:  lodsb
    test %al, %al
    jz 3f
    out %al, $0xe9
    jmp 2b
3:  hlt
    jmp 3b

message:
    .asciz "pvdump.bin has a 64-bit entry only: load it with kexec, or use pvdump.elf\n"

    .org (SETUP_SECTS + 1) * 512
