"""Bytes of a disk: a bounded cache of what was read, and areas, such as partitions, of a disk.

Used by everything that reads structures of a disk; the content of kernels goes past it (load.py).
Rules: a cache and its areas are used by one task at a time; what is read is copied, so that it
stays as it was checked; each read of a disk is counted, and there is a bound on their number, so
that whatever a disk says comes to an end.
"""

import hw
from xenpv import abi
from xenpv.block.blkif import SECTOR
from xenpv.errors import XenError

from .errors import Damaged, Exhausted

PAGE_SIZE = abi.PAGE_SIZE
SLOT_PAGES = 4
SLOT = SLOT_PAGES * PAGE_SIZE
SLOTS = 8
# Reads of disks until renew() is called: those of a kernel and an initrd of 400 MiB on ext2 with
# blocks of 1 KiB are 2000.
READS_MAX = 8192
# Bytes that may be copied out of the cache until renew() is called.
COPIED_MAX = 256 << 20
# Bytes that one read() may ask for.
READ_MAX = 65536


class Cache:
    """The parts of disks that were read last.

    Args:
        slots: how many, of SLOT bytes of the pool each.

    Attributes: reads, how many reads of disks there were since renew().
    """

    def __init__(self, slots=SLOTS):
        self._slots = slots
        self._pages = hw.alloc_pages(slots * SLOT_PAGES)
        self._free = [self._pages + i * SLOT for i in range(slots)]
        # (disk, number of the slot on it, address), used last at the end.
        self._held = []
        self.reads = self._copied = 0

    def renew(self):
        """Begin to count the work anew."""
        self.reads = self._copied = 0

    def close(self):
        """Give the memory back, unless a backend may still write to a part of it."""
        if len(self._free) + len(self._held) == self._slots:
            hw.free_pages(self._pages, self._slots * SLOT_PAGES)
        self._free = self._held = []

    async def slot(self, disk, number, size):
        """Return the bytes of a slot of a disk, a memoryview that the next call may change.

        Args:
            disk: as for Area.
            number: of the slot, from the disk's begin on.
            size: bytes that are going to be copied from it.

        Raises: Damaged behind the disk's end; Exhausted; XenError.
        """
        self._copied += size
        if self._copied > COPIED_MAX:
            raise Exhausted("more than %d MiB of structures were read" % (COPIED_MAX >> 20))
        for i, held in enumerate(self._held):
            if held[0] is disk and held[1] == number:
                self._held.append(self._held.pop(i))
                return hw.mem(held[2], SLOT)
        if self.reads >= READS_MAX:
            raise Exhausted("more than %d reads of the disk" % READS_MAX)
        unit = disk.sector_size // SECTOR
        first = number * (SLOT // SECTOR)
        count = min(SLOT // SECTOR, disk.sectors // unit * unit - first)
        if count <= 0:
            raise Damaged("sector %d is behind the end of the disk" % first)
        if not self._free and not self._held:
            raise MemoryError("no buffer that a backend does not still have")
        address = self._free.pop() if self._free else self._held.pop(0)[2]
        self.reads += 1
        try:
            await disk.read(first, address // PAGE_SIZE, count)
            await disk.drain()
        except XenError:
            # A slot that is still the backend's is not used again; the next read may go well.
            await disk.settle()
            if not disk.grants.set_aside:
                self._free.append(address)
            raise
        self._held.append((disk, number, address))
        return hw.mem(address, SLOT)


class Area:
    """Bytes of a disk that follow each other.

    Args:
        cache: Cache.
        disk: a connected BlkFront, or what has its read(), drain(), settle(), grants, sectors and
            sector_size.
        name: for messages.
        first: where the area begins on the disk, bytes.
        size: bytes; None: up to the disk's end.
    """

    def __init__(self, cache, disk, name, first=0, size=None):
        self.cache = cache
        self.disk = disk
        self.name = name
        self.first = first
        self.size = disk.sectors * SECTOR - first if size is None else size

    def check(self, offset, size):
        """Refuse bytes that are not all in the area. Raises Damaged."""
        if offset < 0 or size < 0 or offset + size > self.size:
            raise Damaged(
                "%s: %d bytes at %d, but it has %d" % (self.name, size, offset, self.size)
            )

    async def read(self, offset, size):
        """Return bytes of the area.

        Args:
            offset: of the first, in the area.
            size: 0 to READ_MAX.

        Raises: Damaged, Exhausted, XenError.
        """
        self.check(offset, size)
        if size > READ_MAX:
            raise Damaged("%s: %d bytes at once, at most %d" % (self.name, size, READ_MAX))
        at = self.first + offset
        number, skip = at // SLOT, at % SLOT
        if skip + size <= SLOT:
            return bytes((await self.cache.slot(self.disk, number, size))[skip : skip + size])
        found = bytearray(size)
        done = 0
        while done < size:
            part = min(SLOT - skip, size - done)
            slot = await self.cache.slot(self.disk, number, part)
            found[done : done + part] = slot[skip : skip + part]
            done += part
            number += 1
            skip = 0
        return bytes(found)
