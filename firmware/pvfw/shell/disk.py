"""A disk as a script sees it: bytes at offsets, and the front end below for everything else.

Used at the prompt and by scripts. Rule: it is connected at its first use; one reads or writes at a
time.
"""

import hw
from xenpv import abi
from xenpv.block import disks, vdev
from xenpv.block.blkif import SECTOR
from xenpv.block.front import BlkFront
from xenpv.errors import BackendError
from xenpv.xenbus import Device

PAGE_SIZE = abi.PAGE_SIZE
PAGES = 16


class Disk:
    """A disk of this domain.

    Args:
        guest: Guest.
        name: such as xvda; None: the first there is.

    Attributes: front, BlkFront once it is connected, else None.
    """

    def __init__(self, guest, name=None):
        self._guest = guest
        self._name = name
        self._buffer = 0
        self.front = None

    def __repr__(self):
        if self.front is None:
            return "<disk %s, not connected>" % (self._name or "(the first)")
        kind = "read-only" if self.front.read_only else "writable"
        return "<disk %s, %d MiB, %s>" % (self._name, self.size() >> 20, kind)

    def size(self):
        """Return its bytes. Raises BackendError before it is connected."""
        if self.front is None:
            raise BackendError("the disk is not connected: await disk.connect()")
        return self.front.sectors * SECTOR

    async def connect(self):
        """Connect to the backend, unless it is done. Returns BlkFront. Raises: XenError."""
        if self.front is None:
            store, loop = self._guest.store, self._guest.loop
            there = await disks.numbers(store)
            number = there[0] if self._name is None and there else vdev.find(self._name, there)
            if number is None:
                names = ", ".join([vdev.name(n) for n in there]) or "none"
                raise BackendError("no disk %s; this guest has %s" % (self._name, names))
            device = Device(store, loop, "%s/%d" % (disks.HOME, number))
            await device.find()
            front = BlkFront(loop, self._guest.grants, device)
            await front.connect()
            self._buffer = self._buffer or hw.alloc_pages(PAGES)
            self._name, self.front = vdev.name(number), front
        return self.front

    async def read(self, offset, size):
        """Return bytes of the disk.

        Args:
            offset: of the first.
            size: how many.

        Raises: XenError.
        """
        return bytes(await self._each(offset, size, self._read))

    async def write(self, offset, data):
        """Write bytes; what stands beside them in their sectors stays. Raises: XenError."""

        async def put(first, sectors, skip, part, at):
            await self._read(first, sectors, skip, part, at)
            hw.mem(self._buffer + skip, len(part))[:] = data[at : at + len(part)]
            await self.front.write(first, self._buffer // PAGE_SIZE, sectors)
            await self.front.drain()

        await self._each(offset, len(data), put)

    async def close(self):
        """Leave the disk to the next kernel. Raises: XenError."""
        front, self.front = self.front, None
        if front is not None:
            await front.close()

    async def _each(self, offset, size, work):
        """Do work(first sector, sectors, bytes to skip, part, where it begins) piece by piece."""
        front = await self.connect()
        if offset < 0 or size < 0 or offset + size > self.size():
            raise BackendError("%d bytes at %d, but the disk has %d" % (size, offset, self.size()))
        found = bytearray(size)
        unit = front.sector_size
        at = 0
        while at < size:
            first = (offset + at) // unit * unit
            skip = offset + at - first
            count = min(size - at, PAGES * PAGE_SIZE - skip)
            whole = (skip + count + unit - 1) // unit * unit
            part = memoryview(found)[at : at + count]
            await work(first // SECTOR, whole // SECTOR, skip, part, at)
            at += count
        return found

    async def _read(self, first, sectors, skip, part, _):
        await self.front.read(first, self._buffer // PAGE_SIZE, sectors)
        await self.front.drain()
        part[:] = hw.mem(self._buffer + skip, len(part))
