"""A guest with a disk whose backend says of itself what a test wants, for tests of the front end.

The backend is pvdump.blkback's own; only the values of its keys are others.
"""

import dataclasses
import random

from stack import Stack

import hw
from pvdump.blkback.device import Device as BackDevice
from pvdump.xen.guest import Guest
from pvdump.xen.sink import Memory
from xenpv.blkfront import BlkFront

SIZE = 8 << 20
PAGE = 4096
GFN, BACK_GFN = 0x200, 0x480
PAGES = 600


class Offering(BackDevice):
    """The backend, but with other values of its keys; None: it does not write that key."""

    other = {}  # noqa: RUF012 - set by each disk

    def _set_state(self, state, keys=None):
        keys = {**(keys or {}), **self.other}
        super()._set_state(state, {key: str(v) for key, v in keys.items() if v is not None})

    def _make(self, front):
        if not self.other.get("feature-persistent", True):
            front = dataclasses.replace(front, persistent=False)
        return super()._make(front)


class Bench:
    """A guest with the disk xvdb, whose backend says `other`."""

    def __init__(self, other=None, sink=None, mode="w", limits=None, buffers=0, **options):
        self.guest = Guest(**options)
        self.sink = sink or Memory(SIZE)
        self.limits, self.buffers = limits, buffers
        self.said = []

        def make(*args):
            device = Offering(*args)
            device.other = other or {}
            return device

        self.back = self.guest.xen.blkback.attach(self.guest, "xvdb", self.sink, mode, make)
        self.guest.settle()

    def run(self, work):
        """Run work(disk) with the disk connected, and close it."""
        stack = Stack()
        self.grants = stack.grants

        async def main():
            device = await stack.device()
            disk = BlkFront(
                stack.loop, stack.grants, device, None, self.buffers, self.said.append, self.limits
            )
            await disk.connect()
            result = await work(disk)
            await disk.close()
            return result

        return stack.run(main)

    def front(self, key):
        return self.guest.store.read(f"{self.back.front}/{key}", "")


async def round_trip(disk):
    """Two MiB and more are written, made to last, and read back."""
    data = random.Random(5).randbytes(PAGES * PAGE)
    hw.mem(GFN * PAGE, len(data))[:] = data
    await disk.write(64, GFN, PAGES * 8)
    await disk.flush()
    await disk.read(64, BACK_GFN, PAGES * 8)
    await disk.drain()
    assert hw.mem(BACK_GFN * PAGE, len(data)) == data
    return disk.limits
