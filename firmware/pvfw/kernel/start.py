"""Load a kernel and its initrds into free memory, and enter it.

Used by the boot mode and by scripts: prepare(), read() for each part, then go(). Rule: all room is
taken before the first byte is read, so that what does not fit is told at once.
Source: Linux Documentation/arch/x86/boot.rst.
"""

import hw
from xenpv import abi
from xenpv.errors import XenError

from . import acpi, leave, params
from .room import Room

PAGE_SIZE = abi.PAGE_SIZE
CONSOLE = b"console="
HVC = b"console=hvc0"


class Plan:
    """Where everything goes.

    Args:
        kernel: as boot.bzimage.Kernel has it: setup, size, entry, address, memory, alignment,
            initrd_max, cmdline_max.
        sizes: bytes of the initrds, in their order.
        options: bytes, the kernel's command line.
        taken: (first, end) of memory that nothing may be put into.

    Attributes: address, of the kernel; initrds, an address for each. Raises: XenError where there
    is not enough memory, or the command line is too long.
    """

    def __init__(self, kernel, sizes, options, taken=()):
        boot = hw.boot()
        self._kernel = kernel
        self._memmap = list(boot[3])
        self._options = options
        if len(options) > kernel.cmdline_max or len(options) >= PAGE_SIZE:
            most = min(kernel.cmdline_max, PAGE_SIZE - 1)
            raise XenError("a command line of %d bytes; the kernel takes %d" % (len(options), most))
        self._rsdp = hw.rsdp()
        if not self._rsdp:
            self._memmap = acpi.with_tables(self._memmap)
        if len(self._memmap) > params.E820_MAX:
            raise XenError("the memory map has %d ranges" % len(self._memmap))
        room = Room(self._memmap, [boot[4]] + list(taken))
        self.address = self._place(room, kernel)
        self._sizes = sizes
        # One behind the other, each on a page of its own: Linux passes zeros in between over.
        pages = [(size + PAGE_SIZE - 1) // PAGE_SIZE for size in sizes]
        # Behind the last one there is a page that reading may use.
        whole = (sum(pages) + 1) * PAGE_SIZE
        first = room.high(whole, kernel.initrd_max + 1) if sizes else 0
        if first is None:
            raise XenError("no memory for initrds of %d KiB" % (sum(sizes) >> 10))
        self.initrds = []
        for count in pages:
            self.initrds.append(first)
            first += count * PAGE_SIZE
        self._page = hw.alloc_pages(2)

    def _place(self, room, kernel):
        # Reading may use a page behind the kernel.
        size = max(kernel.memory, kernel.size + PAGE_SIZE)
        if kernel.address < 1 << 32 and room.at(kernel.address, size):
            return kernel.address
        address = room.low(size, kernel.alignment) if kernel.alignment else None
        if address is None:
            raise XenError(
                "no memory for the kernel: it needs %d KiB at 0x%x" % (size >> 10, kernel.address)
            )
        return address

    async def go(self, guest):
        """Hand the domain back and enter the kernel, which has been read. Does not return.

        The disks have been closed. Raises: XenError.
        """
        initrd = 0, 0
        if self._sizes:
            end = self.initrds[-1] + self._sizes[-1]
            for address, size in zip(self.initrds, self._sizes):
                rest = -size % PAGE_SIZE
                hw.mem(address + size, rest)[:] = bytes(rest)
            initrd = self.initrds[0], end - self.initrds[0]
        if not self._rsdp:
            self._rsdp = acpi.ADDRESS
            vcpus = len(await guest.store.directory("cpu", ()))
            content = acpi.tables(acpi.ADDRESS, min(max(vcpus, 1), acpi.VCPUS_MAX))
            hw.mem(acpi.ADDRESS, len(content))[:] = content
        cmdline = self._page + PAGE_SIZE
        page = params.encode(self._kernel.setup, self._memmap, cmdline, initrd, self._rsdp)
        hw.mem(self._page, PAGE_SIZE)[:] = page
        hw.mem(cmdline, len(self._options) + 1)[:] = self._options + b"\0"
        await leave.leave(guest)
        hw.jump(self.address + self._kernel.entry, self._page)


def with_console(options):
    """Return a command line whose console is the PV console, as its last one."""
    words = options.split()
    consoles = [word for word in words if word[: len(CONSOLE)] == CONSOLE]
    if consoles[-1:] == [HVC]:
        return options
    return b" ".join([word for word in words if word != HVC] + [HVC])
