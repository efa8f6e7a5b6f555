"""A guest with one disk, for tests of the block front end."""

import random

from stack import Stack

from pvdump.xen.earlier import EarlierKernel
from pvdump.xen.guest import Guest
from pvdump.xen.sink import Memory
from xenpv.blkfront import BlkFront

SIZE = 4 << 20


class Bench:
    """A guest with the disk xvdb; options: faults of the backend, and seed and the like."""

    def __init__(self, guest_options=None, size=SIZE, **faults):
        self.guest = Guest(**(guest_options or {}))
        self.sink = Memory(size)
        self.back = self.guest.disk("xvdb", self.sink, **{"plain": True, **faults})
        self.earlier = EarlierKernel(self.guest)

    def run(self, work, connect=True, **options):
        """Run work(disk); the disk is connected and its guest's stack made before.

        options: of BlkFront.
        """
        stack = Stack()
        self.grants = stack.grants

        async def main():
            device = await stack.device()
            disk = BlkFront(stack.loop, stack.grants, device, **options)
            self.disk = disk
            if connect:
                await disk.connect()
            return await work(disk)

        return stack.run(main)

    def frames(self, pages, seed=1):
        """Frames of the guest with random content. Returns (first frame, the content)."""
        data = random.Random(seed).randbytes(pages * 4096)
        self.guest.machine.ram[0x200000 : 0x200000 + len(data)] = data
        return 0x200, data


def assert_writes(bench):
    """The disk can be connected, and what is written is on it."""
    gfn, data = bench.frames(4)

    async def work(disk):
        await disk.write(0, gfn, 32)
        await disk.flush()

    bench.run(work)
    assert bench.sink.data[: len(data)] == data
