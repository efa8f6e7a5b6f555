"""The header of a bzImage: whether a kernel can be started at its 64-bit entry, and where.

Used before a kernel is loaded. Rules: a kernel that lacks what the entry needs is refused; each
field is held against the file and against bounds, so that the loader can add and align them.
Source: Linux Documentation/arch/x86/boot.rst.
"""

import struct

from .errors import Damaged, Unsupported

HEAD_SIZE = 0x268
SETUP_AT = 0x1F1
SECTOR = 512
VERSION_MIN = 0x20C
LOADED_HIGH = 1
KERNEL_64, ABOVE_4G, RELOCATABLE_64 = 1, 2, 0x200
ENTRY_64 = 0x200
ADDRESS_MAX = 1 << 46
SIZE_MAX = 1 << 31
ALIGNMENT_MAX = 1 << 30
SETUP_SECTORS_MAX = 64


class Kernel:
    """What a loader must know.

    Attributes:
        version: of the boot protocol, 0x20c or more.
        setup: bytes of the setup header from SETUP_AT to its end, for boot_params.
        offset, size: of the part of the image that is loaded, in its bytes.
        entry: offset in that part of the 64-bit entry.
        address: where the kernel prefers to be; memory: bytes of RAM that it needs from there on.
        alignment: of another address; 0 where it can be nowhere else.
        initrd_max: the last address that an initrd may have.
        cmdline_max: bytes of a command line, without its NUL.
        high: whether kernel, initrd, command line and boot_params may be above 4 GiB.
    """


def parse(head, size):
    """Read the header.

    Args:
        head: the first HEAD_SIZE bytes of the image, or all of a shorter one.
        size: bytes of the image.

    Returns: Kernel. Raises: Unsupported, Damaged.
    """
    if len(head) < HEAD_SIZE:
        raise Unsupported("a kernel of %d bytes is no bzImage" % len(head))
    if head[0x202:0x206] != b"HdrS" or head[0x1FE:0x200] != b"\x55\xaa":
        raise Unsupported("the kernel is no bzImage: no HdrS")
    kernel = Kernel()
    kernel.version = _u16(head, 0x206)
    if kernel.version < VERSION_MIN:
        raise Unsupported("the kernel has boot protocol 0x%x, before 2.12" % kernel.version)
    flags = _u16(head, 0x236)
    if not flags & KERNEL_64 or not head[0x211] & LOADED_HIGH:
        raise Unsupported("the kernel has no 64-bit entry")
    kernel.high = bool(flags & ABOVE_4G)
    end = 0x202 + head[0x201]
    if not 0x264 <= end <= 0x290:
        raise Damaged("the kernel's setup header ends at 0x%x" % end)
    kernel.setup = head[SETUP_AT : min(end, HEAD_SIZE)]
    sectors = head[SETUP_AT] or 4
    if sectors > SETUP_SECTORS_MAX:
        raise Damaged("the kernel has %d sectors of setup" % sectors)
    kernel.offset = (sectors + 1) * SECTOR
    kernel.size = _u32(head, 0x1F4) * 16
    # The signature of a signed kernel stands behind it.
    if not ENTRY_64 < kernel.size <= size - kernel.offset:
        raise Damaged(
            "the kernel says that it has %d bytes, but there are %d"
            % (kernel.size, size - kernel.offset)
        )
    kernel.entry = ENTRY_64
    _memory(kernel, head)
    kernel.initrd_max = _u32(head, 0x22C)
    kernel.cmdline_max = _u32(head, 0x238)
    if not 0 < kernel.cmdline_max <= 1 << 16:
        raise Damaged("the kernel takes a command line of %d bytes" % kernel.cmdline_max)
    return kernel


def _memory(kernel, head):
    """Read where the kernel can be. Raises Damaged."""
    kernel.address = struct.unpack_from("<Q", head, 0x258)[0]
    kernel.memory = _u32(head, 0x260)
    kernel.alignment = _u32(head, 0x230) if head[0x234] else 0
    if kernel.address < 1 << 20 or kernel.address % 4096 or kernel.address > ADDRESS_MAX:
        raise Damaged("the kernel wants to be at 0x%x" % kernel.address)
    if not kernel.size <= kernel.memory <= SIZE_MAX:
        raise Damaged("the kernel of %d bytes needs %d" % (kernel.size, kernel.memory))
    wanted = kernel.alignment
    if wanted and (wanted & (wanted - 1) or not 4096 <= wanted <= ALIGNMENT_MAX):
        raise Damaged("the kernel's alignment is 0x%x" % wanted)


async def read(place):
    """Read the header of a kernel.

    Args:
        place: entries.Place.

    Returns: Kernel, whose offset is from the place's begin on. Raises: as parse() and
    Place.open().
    """
    file, offset, size = await place.open()
    return parse(await file.read(offset, min(HEAD_SIZE, size)), size)


def _u16(raw, at):
    return struct.unpack_from("<H", raw, at)[0]


def _u32(raw, at):
    return struct.unpack_from("<I", raw, at)[0]
