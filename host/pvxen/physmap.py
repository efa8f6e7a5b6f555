"""A guest's memory: its RAM, the frames of Xen in it, and its holes.

The base of Machine. Physical address 0 is the first byte of `ram`. Frames that belong to Xen
(shared_info, the grant table) are outside of it until the guest maps them. Then the guest's page
holds the frame, and the page's old content is lost, as on a real machine; the page that a frame
leaves becomes a hole that reads as ones.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable
from errno import EINVAL

from xenpv import abi

MAP_NORESERVE = 0x4000  # memory that is not touched costs nothing, however large a guest is


class XenPage:
    """A frame of Xen's own; gfn: where the guest has mapped it, None when nowhere."""

    def __init__(self) -> None:
        self.gfn: int | None = None
        self.view = memoryview(bytearray(abi.PAGE_SIZE))


class Physmap:
    """The base of Machine: the memory at each of the guest's frame numbers.

    Args:
        size: bytes of RAM.
        ram: the memory of a domain that is gone, to be used again; None: new memory.

    Attributes:
        holes: gfns without memory behind them (ballooned out).
        foreign: gfns with another domain's memory, which Xen neither lends nor copies.
        reread: called with (addr, value) when a guest under CPython fetches a u32; returns what
            the guest gets, where somebody else writes that memory at the same time. None: nobody.
        translate: called with a linear address; returns the physical one, or None where nothing
            is mapped. Set by a CPU that executes the guest; None: all addresses are physical.
    """

    def __init__(self, size: int, ram: mmap.mmap | None = None) -> None:
        if ram is None:
            flags = mmap.MAP_SHARED | mmap.MAP_ANONYMOUS | MAP_NORESERVE
            ram = mmap.mmap(-1, size, flags=flags)
        else:
            ram[:] = bytes(size)
        self.ram = ram
        self.holes: set[int] = set()
        self.foreign: set[int] = set()
        self.reread: Callable[[int, int], int] | None = None
        self.translate: Callable[[int], int | None] | None = None
        self._homes: dict[int, XenPage] = {}

    def new_page(self) -> XenPage:
        """Return a page of Xen's that a guest may map."""
        return XenPage()

    def place(self, page: XenPage, gfn: int) -> None:
        """Map a frame of Xen's at a gfn, in place of what is there."""
        evicted = self._homes.pop(gfn, None)
        if evicted is page:
            self._homes[gfn] = page
            return
        if evicted is not None:
            evicted.view = memoryview(bytearray(evicted.view))
            evicted.gfn = None
        here = self.page(gfn)
        here[:] = page.view
        if page.gfn is not None:
            del self._homes[page.gfn]
            page.view[:] = b"\xff" * abi.PAGE_SIZE
            self.holes.add(page.gfn)
        page.gfn, page.view = gfn, here
        self._homes[gfn] = page
        self.holes.discard(gfn)

    def take_back(self, page: XenPage, fresh: bool = False) -> None:
        """Unmap a frame of Xen's; it leaves a hole or, if `fresh`, a page of zeros."""
        if page.gfn is None:
            return
        del self._homes[page.gfn]
        left = page.view
        page.view = memoryview(bytearray(left))
        left[:] = (b"\0" if fresh else b"\xff") * abi.PAGE_SIZE
        if not fresh:
            self.holes.add(page.gfn)
        page.gfn = None

    def remove(self, gfn: int) -> int:
        """Take what is at a gfn out of it. Returns 0, or -errno where nothing is."""
        if not self.is_ram(gfn):
            return -EINVAL
        page = self._homes.get(gfn)
        if page is not None:
            self.take_back(page)
        else:
            self.page(gfn)[:] = b"\xff" * abi.PAGE_SIZE
            self.holes.add(gfn)
        return 0

    def populate(self, gfn: int) -> bool:
        """Put a page of zeros at a gfn, in place of what is there. Returns whether it can be."""
        if (gfn + 1) * abi.PAGE_SIZE > len(self.ram):
            return False
        if self.is_ram(gfn):
            self.remove(gfn)
        self.page(gfn)[:] = bytes(abi.PAGE_SIZE)
        self.holes.discard(gfn)
        return True

    def is_ram(self, gfn: int) -> bool:
        """Return whether there is memory at a gfn."""
        return (gfn + 1) * abi.PAGE_SIZE <= len(self.ram) and gfn not in self.holes

    def is_lendable(self, gfn: int) -> bool:
        """Return whether the memory at a gfn is the guest's own."""
        return self.is_ram(gfn) and gfn not in self.foreign

    def page(self, gfn: int) -> memoryview:
        """Return the 4096 bytes of a gfn."""
        return memoryview(self.ram)[gfn * abi.PAGE_SIZE : (gfn + 1) * abi.PAGE_SIZE]
