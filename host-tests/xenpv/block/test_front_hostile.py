"""The block front end against a backend that does anything, by seed.

It does what it was asked, or says in one XenError that it did not, within bounded virtual time; it
lends nothing but what is in flight; and with a backend that came to reason it works.
"""

import random

import pytest
from fixtures.lyingbackend import LIES, LyingBack

from pvxen.toolstack import Toolstack
from xenpv import abi
from xenpv.block.front import BlkFront
from xenpv.errors import XenError
from xenpv.guest import Guest
from xenpv.loop import SECOND
from xenpv.xenbus import Device

PAGES = 64
PAGE = 4096
SOURCE, TARGET, OTHER = 0x200, 0x300, 0x400  # frames of the caller's, and of nobody
BOUND = 400 * SECOND  # of one operation
ROUNDS, OPERATIONS = 4, 6


class Hang(BaseException):
    """An operation took longer than any may."""


class Story:
    """One guest that uses a disk whose backend lies, by seed.

    content: of the disk's pages, None where it is not known.
    """

    def __init__(self, seed):
        self.draw = random.Random(seed)
        self.xen = Toolstack(seed)
        self.domain = self.xen.create(1, gnttab_version=self.draw.choice([1, 2]))
        self.machine = self.domain.machine
        self.back = LyingBack(self.domain, PAGES * PAGE, self.draw)
        self.buffers = self.draw.choice([0, 0, 2, 8])
        self.content = [bytes(PAGE)] * PAGES
        self.target = b""
        self.errors = []
        other = random.Random(0).randbytes(16 * PAGE)
        self.machine.ram[OTHER * PAGE : OTHER * PAGE + len(other)] = other
        self.other = other

    def run(self):
        with self.xen.running(1):
            guest = Guest()
            self.loop, self.store, self.grants = guest.loop, guest.store, guest.grants
            self.loop.run(self.main())
        assert bytes(self.machine.page(OTHER)) == self.other[:PAGE]
        for page, known in enumerate(self.content):
            found = bytes(self.back.sink.data[page * PAGE : (page + 1) * PAGE])
            assert known in (None, found), page

    async def main(self):
        await self.store.connect()
        for _ in range(ROUNDS):
            try:
                await self.use()
            except XenError as error:
                self.errors.append(str(error))
        self.back.come_to_reason()
        await self.use()

    async def use(self):
        device = Device(self.store, self.loop, "device/vbd/51728")
        disk = BlkFront(self.loop, self.grants, device, buffers=self.buffers)
        try:
            await self.bounded(device.find())
            await self.bounded(disk.connect())
            for _ in range(OPERATIONS):
                await self.draw.choice([self.write, self.write, self.read, self.flush])(disk)
                self.look_at_grants()
            await self.bounded(disk.close())
        except XenError:
            self.look_at_grants(in_flight=True)
            if disk.connected():
                try:
                    await self.bounded(disk.close())
                except XenError as error:
                    self.errors.append(str(error))
            raise
        finally:
            self.look_at_grants()

    async def bounded(self, operation):
        def hang():
            raise Hang

        timer = self.xen.clock.after(BOUND, hang)
        try:
            await operation
        finally:
            self.xen.clock.cancel(timer)

    def look_at_grants(self, in_flight=False):
        """What is lent to the backend is the front end's own, or was mapped and is set aside."""
        table, kept = self.machine.gnttab, 0
        for ref in range(abi.GNTTAB_NR_RESERVED_ENTRIES, table.entries()):
            flags, _, frame = table.entry(ref)
            if flags & 3 == abi.GTF_permit_access and frame * PAGE < self.machine.region[0]:
                assert SOURCE <= frame < TARGET + PAGES, hex(frame)
                assert frame >= TARGET or flags & abi.GTF_readonly
                kept += 1
        assert in_flight or kept <= self.grants.set_aside

    async def write(self, disk):
        first = self.draw.randrange(PAGES)
        last = self.draw.randrange(first, PAGES) + 1
        data = self.draw.randbytes((last - first) * PAGE)
        at = (SOURCE + first) * PAGE
        self.machine.ram[at : at + len(data)] = data
        known = self.content[first:last]
        self.content[first:last] = [None] * (last - first)
        while first < last:
            count = min(self.draw.randint(1, 20), last - first)
            await self.bounded(disk.write(first * 8, SOURCE + first, count * 8))
            first += count
        await self.bounded(disk.drain())
        self.content[last - len(known) : last] = [
            data[i : i + PAGE] for i in range(0, len(data), PAGE)
        ]
        assert self.machine.ram[at : at + len(data)] == data

    async def read(self, disk):
        first = self.draw.randrange(PAGES)
        count = self.draw.randint(1, PAGES - first)
        await self.bounded(disk.read(first * 8, TARGET + first, count * 8))
        await self.bounded(disk.drain())
        for page in range(first, first + count):
            known = self.content[page]
            assert known in (None, bytes(self.machine.page(TARGET + page))), page

    async def flush(self, disk):
        await self.bounded(disk.flush())


@pytest.mark.fuzz("block-front")
def test_a_backend_that_does_anything_harms_nothing(fuzz):
    for seed in fuzz.seeds(40):
        Story(seed).run()


def test_every_lie_is_tried_and_many_are_found_out():
    stories = [Story(seed) for seed in range(1, 80)]
    for story in stories:
        story.run()
    assert {lie for story in stories for lie in story.back.lies} == set(LIES)
    errors = "\n".join(error for story in stories for error in story.errors)
    for said in ("not in flight", "responses to", "with operation", "with status", "expected"):
        assert said in errors
