/*
 * The first 4096 bytes of pvdump.bin: the boot sector and the setup sectors of a bzImage, before the
 * body. tools/image.py links it to a flat file and gives it the numbers body_*. The boot sector is
 * the header of a PE file as well, so that the image can be signed.
 *
 * Rule: only the 64-bit entry is offered (xloadflags). kexec_load and kexec_file_load use it, also
 * above 4 GiB and with five-level paging. The 16-bit entry prints that on port 0xE9 and stops; the
 * entry of the PE file returns EFI_UNSUPPORTED.
 * Rule: what is hashed for a signature is the header and the one section, from byte 4096 to the end
 * of the file, so the setup part is one page and addresses of the PE file are offsets in the file.
 * Source: Linux Documentation/arch/x86/boot.rst; the checks of kexec-tools' kexec-bzImage64.c and
 * Linux' kexec-bzimage64.c; Microsoft's PE Format; Linux crypto/asymmetric_keys/verify_pefile.c.
 */
#define SETUP_SECTS 7
#define SETUP_SIZE ((SETUP_SECTS + 1) * 512)

#define MACHINE_AMD64 0x8664
/* Executable, large addresses, no debug information. */
#define CHARACTERISTICS (0x0002 | 0x0020 | 0x0200)
#define PE32_PLUS 0x20b
#define SUBSYSTEM_EFI_APPLICATION 10
#define NX_COMPAT 0x0100
#define TEXT_CODE_EXECUTE_READ (0x00000020 | 0x20000000 | 0x40000000)

#define LOADED_HIGH 0x01

#define XLF_KERNEL_64 0x01
#define XLF_CAN_BE_LOADED_ABOVE_4G 0x02
#define XLF_5LEVEL 0x20

    .code16
    .section .setup, "ax", @progbits
    .globl setup
setup:
    .ascii "MZ"
    .org 0x3c
    .long pe                /* e_lfanew */
pe:
    .ascii "PE\0\0"
    .word MACHINE_AMD64
    .word 1                 /* sections */
    .long 0                 /* time */
    .long 0, 0              /* no symbols */
    .word sections - optional
    .word CHARACTERISTICS
optional:
    .word PE32_PLUS
    .byte 0, 0              /* version of the linker */
    .long body_size         /* SizeOfCode */
    .long 0, 0              /* sizes of data and bss */
    .long SETUP_SIZE + body_efi_entry
    .long SETUP_SIZE        /* BaseOfCode */
    .quad 0                 /* ImageBase */
    .long 4096              /* SectionAlignment */
    .long 512               /* FileAlignment */
    .word 0, 0, 0, 0, 0, 0  /* versions of system, image and subsystem */
    .long 0
    .long body_image_size   /* SizeOfImage */
    .long SETUP_SIZE        /* SizeOfHeaders */
    .long 0                 /* CheckSum: a signer writes it */
    .word SUBSYSTEM_EFI_APPLICATION
    .word NX_COMPAT
    .quad 0, 0, 0, 0        /* stack and heap: the firmware's */
    .long 0
    .long (directories_end - directories) / 8
directories:                /* export, import, resource, exception, certificate, relocation */
    .quad 0, 0, 0, 0, 0, 0
directories_end:
sections:
    .ascii ".text\0\0\0"
    .long body_size         /* VirtualSize */
    .long SETUP_SIZE        /* VirtualAddress */
    .long body_size         /* SizeOfRawData */
    .long SETUP_SIZE        /* PointerToRawData */
    .long 0, 0, 0           /* no relocations, no line numbers */
    .long TEXT_CODE_EXECUTE_READ

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

    .org SETUP_SIZE
