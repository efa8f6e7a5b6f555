"""boot_params, the page that tells Linux how it was loaded.

Used by start.py. Source: Linux Documentation/arch/x86/{boot,zero-page}.rst.
"""

import struct

SIZE = 4096
# Offsets.
ACPI_RSDP_ADDR = 0x070
EXT_RAMDISK = 0x0C0
EXT_CMD_LINE_PTR = 0x0C8
E820_ENTRIES = 0x1E8
SETUP = 0x1F1
LOADER = 0x210
RAMDISK = 0x218
CMD_LINE_PTR = 0x228
E820_TABLE = 0x2D0

E820_MAX = 128
UNDEFINED_LOADER = 0xFF


def encode(setup, memmap, cmdline, initrd, rsdp):
    """Return the page.

    Args:
        setup: bytes of the kernel's setup header from 0x1f1 on.
        memmap: (address, bytes, type) of each range, at most E820_MAX.
        cmdline: physical address of the command line.
        initrd: (physical address, bytes), (0, 0) for none.
        rsdp: physical address of ACPI's root pointer, 0 for none.
    """
    page = bytearray(SIZE)
    page[SETUP : SETUP + len(setup)] = setup
    page[LOADER] = UNDEFINED_LOADER
    struct.pack_into("<Q", page, ACPI_RSDP_ADDR, rsdp)
    for at, value in zip((RAMDISK, RAMDISK + 4), initrd):
        struct.pack_into("<I", page, at, value & 0xFFFFFFFF)
    for at, value in zip((EXT_RAMDISK, EXT_RAMDISK + 4), initrd):
        struct.pack_into("<I", page, at, value >> 32)
    struct.pack_into("<I", page, CMD_LINE_PTR, cmdline & 0xFFFFFFFF)
    struct.pack_into("<I", page, EXT_CMD_LINE_PTR, cmdline >> 32)
    page[E820_ENTRIES] = len(memmap)
    for i, (address, size, kind) in enumerate(memmap):
        struct.pack_into("<QQI", page, E820_TABLE + 20 * i, address, size, kind)
    return page
