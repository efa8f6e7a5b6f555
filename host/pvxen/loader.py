"""The loaders of the image: they put it and its boot data into a guest's memory.

load_pvh() is what Xen's tools do for type="pvh", load_bzimage() what kexec does. Both take the
command line, the modules and the memory map from the machine, where hw.boot() gets them under
CPython, and return where the CPU is to begin. The rule: a loader writes to its own pages only,
directly behind the memory that the image needs.
Source: xen/include/public/arch-x86/hvm/start_info.h; Linux Documentation/arch/x86/boot.rst.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from xenpv.abi import PAGE_SIZE

from . import pagetables

if TYPE_CHECKING:
    from .machine import Machine

PT_LOAD, PT_NOTE = 1, 4
XEN_ELFNOTE_PHYS32_ENTRY = 18
START_MAGIC = 0x336EC578
PARAMS, CMDLINE = 0, PAGE_SIZE  # of the loader's pages: boot data, then the command line
OWN_PAGES = 2
CMDLINE_MAX = 2048
SEED = CMDLINE + CMDLINE_MAX  # of a bzImage, a struct setup_data with random bytes
SETUP_RNG_SEED = 9
# Offsets into a bzImage and into boot_params.
HEADER, HEADER_END = 0x1F1, 0x26C
SETUP_SECTS = 0x1F1
MAGIC = 0x202
RAMDISK_IMAGE, RAMDISK_SIZE = 0x218, 0x21C
CMD_LINE_PTR = 0x228
SETUP_DATA = 0x250
INIT_SIZE = 0x260
E820_ENTRIES, E820_TABLE, E820_MAX = 0x1E8, 0x2D0, 128


class NotAnImage(Exception):
    """The file cannot be loaded this way; the message says why."""


@dataclass(frozen=True)
class Start:
    """The CPU's state at the image's first instruction.

    Attributes:
        bits: 32 (paging off) or 64 (the first GiB is mapped to itself).
        rip: physical address of the first instruction.
        info: physical address of the boot data: rbx at 32 bits, rsi at 64.
        free: physical address of the first page that neither image nor loader uses.
    """

    bits: int
    rip: int
    info: int
    free: int


def load(machine: Machine, elf: bytes, flat: bytes) -> Start:
    """Load the image for the door that the machine names, in its region for a bzImage.

    Args:
        machine: gets the image; its boot() says door, command line, modules, map and region.
        elf: pvdump.elf.
        flat: pvdump.bin.

    Raises: NotAnImage.
    """
    door, region = machine.boot()[0], machine.boot()[4]
    return load_pvh(machine, elf) if door == "pvh" else load_bzimage(machine, flat, region)


def load_pvh(machine: Machine, elf: bytes) -> Start:
    """Load an ELF file with a PVH note to the addresses that it names.

    Raises: NotAnImage.
    """
    if elf[:4] != b"\x7fELF" or len(elf) < 64:
        raise NotAnImage("no ELF file")
    (phoff,) = struct.unpack_from("<Q", elf, 32)
    size, count = struct.unpack_from("<HH", elf, 54)
    end, entry = 0, None
    for i in range(count):
        kind, _, offset, _, paddr, filesz, memsz, _ = struct.unpack_from(
            "<IIQQQQQQ", elf, phoff + i * size
        )
        if kind == PT_LOAD:
            _put(machine, paddr, elf[offset : offset + filesz].ljust(memsz, b"\0"))
            end = max(end, paddr + memsz)
        elif kind == PT_NOTE and struct.unpack_from("<I", elf, offset + 8)[0] == 18:
            (entry,) = struct.unpack_from("<Q", elf, offset + 16)
    if entry is None:
        raise NotAnImage("the ELF file has no PVH note")
    own = _page_up(end)
    cmdline, modules, memmap = machine.boot()[1:4]
    listed, ranges = own + 0x100, own + 0x200
    _put(machine, own, bytes(OWN_PAGES * PAGE_SIZE))
    _put(machine, own + CMDLINE, _text(cmdline))
    for i, module in enumerate(modules):
        struct.pack_into("<QQQQ", machine.ram, listed + 32 * i, *module, 0, 0)
    for i, (address, length, kind) in enumerate(memmap):
        struct.pack_into("<QQII", machine.ram, ranges + 24 * i, address, length, kind, 0)
    struct.pack_into(
        "<IIIIQQQQII",
        machine.ram,
        own,
        *(START_MAGIC, 1, 0, len(modules), listed, own + CMDLINE, 0, ranges, len(memmap), 0),
    )
    return Start(32, entry, own, own + OWN_PAGES * PAGE_SIZE)


def load_bzimage(machine: Machine, flat: bytes, region: tuple[int, int]) -> Start:
    """Load a bzImage to the start of a region, and enter it by its 64-bit entry.

    Raises: NotAnImage, also where it does not fit.
    """
    if flat[MAGIC : MAGIC + 4] != b"HdrS":
        raise NotAnImage("no bzImage")
    body = flat[(flat[SETUP_SECTS] + 1) * 512 :]
    (init_size,) = struct.unpack_from("<I", flat, INIT_SIZE)
    at, own = region[0], _page_up(region[0] + init_size)
    free = own + OWN_PAGES * PAGE_SIZE
    if free + (pagetables.MAP_PAGES + 1) * PAGE_SIZE > region[1]:
        raise NotAnImage(f"it needs 0x{init_size:x} bytes, the region 0x{at:x} has not as much")
    cmdline, modules, memmap = machine.boot()[1:4]
    _put(machine, at, body)
    params = bytearray(OWN_PAGES * PAGE_SIZE)
    params[HEADER:HEADER_END] = flat[HEADER:HEADER_END]
    params[CMDLINE : CMDLINE + CMDLINE_MAX] = _text(cmdline)
    struct.pack_into("<I", params, CMD_LINE_PTR, own + CMDLINE)
    if modules:
        struct.pack_into("<II", params, RAMDISK_IMAGE, *modules[0])
    params[E820_ENTRIES] = min(len(memmap), E820_MAX)
    for i, entry in enumerate(memmap[:E820_MAX]):
        struct.pack_into("<QQI", params, E820_TABLE + 20 * i, *entry)
    if machine.rng_seed:
        seed = struct.pack("<QII", 0, SETUP_RNG_SEED, len(machine.rng_seed)) + machine.rng_seed
        params[SEED : SEED + len(seed)] = seed
        struct.pack_into("<Q", params, SETUP_DATA, own + SEED)
    _put(machine, own, params)
    return Start(64, at + 0x200, own, free)


def _page_up(address: int) -> int:
    return (address + PAGE_SIZE - 1) // PAGE_SIZE * PAGE_SIZE


def _text(cmdline: bytes) -> bytes:
    if len(cmdline) >= CMDLINE_MAX:
        raise NotAnImage(f"a command line of {len(cmdline)} bytes; {CMDLINE_MAX - 1} are possible")
    return cmdline.ljust(CMDLINE_MAX, b"\0")


def _put(machine: Machine, address: int, data: bytes | bytearray) -> None:
    if address + len(data) > len(machine.ram):
        raise NotAnImage(f"0x{len(data):x} bytes at 0x{address:x} do not fit into the RAM")
    machine.ram[address : address + len(data)] = data
