"""A run of our front end and our backend on one host after another, drawn from one seed.

Used by test_both_ends.py. A story has one or two worlds (world.py), each ended by a loss of power;
in a world, kernels run one after the other in the same memory (kernel.py), with faults. The rule:
the story alone says what each sector may hold (sectors.py), and never asks what was done.
"""

import random
import re

from blkback.cache import CachedDisk
from blkback.front import CLOSED, FLUSH, INIT_WAIT, INITIALISING, OKAY
from blkback.kernel import Kernel
from blkback.sectors import SECTOR, Sectors
from blkback.world import GUEST, HARMFUL, World

SECTORS = 512
REGION, REGION_SIZE = 16 << 20, 12 << 20  # of the first kernel; the next ones' follow


class Story:
    """One run.

    happens: names of faults that may happen, of world.HELPED and HARMFUL; disk: a class of disks;
    errors: of the front end.
    """

    def __init__(self, seed, happens, disk=CachedDisk):
        self.seed = seed
        self.draw = random.Random(seed)
        self.happens = happens
        self.harmful = any(name in HARMFUL for name in happens)
        self.disk = disk(self.draw, SECTORS, self.draw.choice([SECTOR, SECTOR, SECTOR, 4096]))
        self.sectors = Sectors(SECTORS)
        self.errors = []

    def run(self, operations):
        """operations: of each kernel. Raises AssertionError."""
        for number in range(self.draw.choice([1, 1, 2])):
            other = CachedDisk(self.draw, SECTORS)
            world = World(self.seed + number, self.draw, self.disk, other, self.sectors)
            self._play(world, operations)
            world.back.die()
            self.disk.lose()
            self.sectors.power_lost(self.disk.data)

    def _play(self, world, operations):
        draw = self.draw
        endings = draw.choices(["kexec", "soft reset"], k=draw.choice([0, 0, 1, 2]))
        for number, ending in enumerate([*endings, draw.choice(["closed", "closed", "power"])]):
            begin = REGION + number * REGION_SIZE
            world.machine.kexec(region=(begin, begin + REGION_SIZE))
            with world.xen.running(GUEST):
                kernel = Kernel(self, world, ending)
                kernel.loop.run(kernel.main(operations))
            self.sectors.failed()
            if ending == "power":
                return
            if ending != "closed":
                self._crash(world, ending)
        self._hostile_is_put_right(world)

    def _crash(self, world, ending):
        """The next kernel finds everything as it was, or what a soft reset leaves."""
        for timer in world.machine.watchdogs.values():
            world.clock.cancel(timer)
        world.machine.watchdogs.clear()
        if ending == "kexec":
            world.xen.resume(GUEST)
            return
        world.heal()
        world.take_away()
        world.settle()
        world.xen.soft_reset(GUEST)
        world.back.attach(world.domain, "xvdb", world.disk)

    def _hostile_is_put_right(self, world):
        """The neighbour may connect again whatever it did, and only its errors are told of."""
        front = world.hostile
        front.disk.strike = lambda name: None
        for key in ("ring-ref", "ring-page-order", "protocol", "feature-persistent"):
            world.back.store.remove(f"{front.node}/{key}")
        assert front.say(CLOSED) == CLOSED
        assert front.mapped() == 0
        assert front.say(INITIALISING) == INIT_WAIT
        assert front.connect().status(FLUSH) == OKAY
        if not self.harmful:
            told = [line for line in world.log() if line.startswith(f"pvdump_vbd {GUEST}/")]
            assert all(re.search("once|no memory|reduced to", line) for line in told), told
