"""A disk whose connection ends: left in order, or connected again with what is offered then."""

import random

import pytest
from fixtures.stack import Stack

import hw
from pvxen.guest import EmbeddedGuest
from pvxen.hypervisor import DOM0
from pvxen.sink import Memory
from xenpv import abi
from xenpv.block.front import BlkFront
from xenpv.errors import BackendError
from xenpv.loop import SECOND

GFN, PAGES = 0x200, 600
PAGE = 4096


class Bench:
    """A guest with disks xvda, xvdb, ...; faults: of all their backends."""

    def __init__(self, disks=1, options=None, **faults):
        self.guest = EmbeddedGuest(**(options or {}))
        self.sinks = [Memory(4 << 20) for _ in range(disks)]
        self.backs = [
            self.guest.disk("xvd" + chr(ord("a") + i), sink, **faults)
            for i, sink in enumerate(self.sinks)
        ]
        self.said = []

    def data(self):
        data = random.Random(2).randbytes(PAGES * PAGE)
        hw.mem(GFN * PAGE, len(data))[:] = data
        return data

    def run(self, work):
        """work(*disks), which are connected."""
        stack = Stack()
        self.grants = stack.grants

        async def main():
            disks = []
            for back in self.backs:
                device = await stack.device(back.front.split("/", 4)[4])
                disks.append(BlkFront(stack.loop, stack.grants, device, say=self.said.append))
                await disks[-1].connect()
            result = await work(*disks)
            await stack.loop.sleep(SECOND)
            return result

        return stack.run(main)


# Leaving.


def test_closing_waits_for_requests_in_flight_and_flushes():
    bench = Bench(latency=SECOND // 10, reorder=True)
    data = bench.data()

    async def work(disk):
        await disk.write(0, GFN, PAGES * 8)
        await disk.close()

    bench.run(work)
    assert bench.sinks[0].data[: len(data)] == data
    assert bench.sinks[0].flushes == 1
    assert bench.backs[0].seen[-1].op == abi.BLKIF_OP_FLUSH_DISKCACHE


@pytest.mark.parametrize("flushed", [True, False])
def test_a_disk_without_new_writes_is_not_flushed_at_closing(flushed):
    bench = Bench()

    async def work(disk):
        if flushed:
            await disk.write(0, GFN, 8)
            await disk.flush()
        await disk.read(0, GFN, 8)
        await disk.close()

    bench.run(work)
    assert bench.sinks[0].flushes == flushed


def test_nothing_of_ours_is_left_behind():
    bench = Bench()
    store, back = bench.guest.store, bench.backs[0]
    ports = []

    async def work(disk):
        ports.append(len(list(bench.guest.machine.evtchn.of(1))))
        await disk.write(0, GFN, PAGES * 8)
        await disk.close()
        ports.append(len(list(bench.guest.machine.evtchn.of(1))))

    before = set(store.directory(back.front))
    bench.run(work)
    assert set(store.directory(back.front)) == before
    assert store.read(f"{back.front}/state") == str(abi.XenbusStateInitialising)
    assert back.states[-2:] == [abi.XenbusStateClosed, abi.XenbusStateInitWait]
    assert bench.guest.machine.gnttab.mappings == []
    assert bench.grants.set_aside == 0
    assert ports == [ports[0], ports[0] - 1]


def test_a_disk_that_failed_is_left_in_order_all_the_same():
    bench = Bench(error_after=1 << 20)

    async def work(disk):
        await disk.write(0, GFN, PAGES * 8)
        with pytest.raises(BackendError, match=r"write of sector \d+ failed"):
            await disk.drain()
        await disk.close()

    bench.run(work)
    assert bench.backs[0].states[-2:] == [abi.XenbusStateClosed, abi.XenbusStateInitWait]
    assert bench.guest.machine.gnttab.mappings == []


def test_a_failure_of_the_last_writes_is_raised_by_close():
    bench = Bench(error_after=0)

    async def work(disk):
        await disk.write(0, GFN, 8)
        with pytest.raises(BackendError, match="write of sector 0 failed"):
            await disk.close()

    bench.run(work)
    assert bench.backs[0].states[-2:] == [abi.XenbusStateClosed, abi.XenbusStateInitWait]


def test_a_disk_is_connected_again_and_again_without_growing_anything():
    bench = Bench()

    async def work(disk):
        await disk.write(0, GFN, PAGES * 8)
        await disk.close()
        before = bench.guest.machine._taken.count(1), bench.grants.free()
        for _ in range(5):
            await disk.connect()
            await disk.write(0, GFN, PAGES * 8)
            await disk.close()
        assert (bench.guest.machine._taken.count(1), bench.grants.free()) == before

    bench.run(work)


@pytest.mark.parametrize("options", [{}, {"buffers": 4}])
def test_a_disk_that_is_closed_gives_the_memory_of_its_rings_back(options):
    bench = Bench()

    async def work(disk):
        await disk.close()
        again = BlkFront(disk.loop, disk.grants, disk.device, **options)
        before = bench.guest.machine._taken.count(1)
        await again.connect()
        await again.write(0, GFN, PAGES * 8)
        assert bench.guest.machine._taken.count(1) > before
        await again.close()
        assert bench.guest.machine._taken.count(1) == before

    bench.run(work)


def test_memory_that_a_backend_still_has_mapped_is_not_given_back():
    bench = Bench()
    taken = []

    async def work(disk):
        table = bench.guest.machine.gnttab
        ref = disk.connection.requests.ring_refs()[0]
        table.map(ref, DOM0, False)
        ring = disk.connection.requests.memory.ring.addr
        await disk.close()
        assert bench.grants.set_aside == 1
        taken.append(bench.guest.machine._taken[(ring - bench.guest.machine.region[0]) // PAGE])

    bench.run(work)
    assert taken == [1]


# Coming back.


def test_a_backend_that_comes_back_with_less_gets_the_same_data_in_smaller_requests():
    bench = Bench(dies=1, latency=SECOND // 1000)
    back, data = bench.backs[0], bench.data()

    async def work(disk):
        assert disk.limits.segments == 256
        back._withheld = {"max-ring-page-order", "max-ring-pages", "feature-max-indirect-segments"}
        for key in back._withheld:
            bench.guest.store.rm(f"{back.path}/{key}")
        await disk.write(0, GFN, PAGES * 8)
        await disk.flush()
        return disk.limits.pages, disk.limits.segments

    assert bench.run(work) == (1, 11)
    assert bench.sinks[0].data[: len(data)] == data
    assert "device/vbd/51712: segments 256 reduced to 11" in bench.said


def test_a_backend_is_looked_for_again_and_again_until_it_is_back():
    bench = Bench(dies=1)
    back, data = bench.backs[0], bench.data()
    store, node = bench.guest.store, f"{bench.backs[0].front}/backend"

    async def work(disk):
        store.rm(node)
        back.clock.after(20 * SECOND, lambda: store.write(node, back.path))
        await disk.write(0, GFN, PAGES * 8)
        await disk.flush()
        return disk.loop.now()

    assert bench.run(work) > 20 * SECOND
    assert bench.sinks[0].data[: len(data)] == data


def test_a_backend_that_comes_back_with_more_is_used_as_far_as_the_rings_memory_goes():
    bench = Bench(dies=3, plain=True)
    back, data = bench.backs[0], bench.data()

    async def work(disk):
        assert disk.limits.segments == 11
        back._withheld = set()
        await disk.write(0, GFN, PAGES * 8)
        await disk.flush()
        return disk.limits.pages, disk.limits.segments

    assert bench.run(work) == (1, 256)
    assert bench.sinks[0].data[: len(data)] == data


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("size", 1 << 20, "it came back with 2048 sectors in units of 512 bytes, there were 8192"),
        ("sector_size", 4096, "with 8192 sectors in units of 4096 bytes, there were 8192 of 512"),
    ],
)
def test_a_backend_that_comes_back_with_another_disk_is_refused(name, value, message):
    bench = Bench(dies=1)

    async def work(disk):
        setattr(bench.backs[0]._disk.sink, name, value)
        await disk.write(0, GFN, PAGES * 8)
        await disk.drain()

    with pytest.raises(BackendError, match=message):
        bench.run(work)
    assert len(bench.backs[0].seen) == 2


# Several at once on one grant table.


def test_disks_that_share_a_small_grant_table_wait_for_each_others_entries():
    bench = Bench(disks=3, options={"gnttab_max_frames": 1}, latency=SECOND // 1000)
    data = bench.data()

    async def stream(disk):
        await disk.write(0, GFN, PAGES * 8)
        await disk.flush()

    async def work(*disks):
        began = hw.now()
        await disks[0].loop.gather([stream(disk) for disk in disks])
        return hw.now() - began

    took = bench.run(work)
    for sink in bench.sinks:
        assert sink.data[: len(data)] == data
    assert took < SECOND


def test_a_disk_that_found_no_entries_gets_in_while_another_goes_on():
    bench = Bench(disks=2, options={"gnttab_max_frames": 1})
    done = []

    async def stream(disk):
        await disk.write(0, GFN, 440 * 8)
        while not done and hw.now() < began + SECOND // 20:
            await disk.write(0, GFN, 8)
            await disk.drain()

    async def once(disk):
        await disk.write(0, GFN, 100 * 8)
        await disk.drain()
        done.append(hw.now() - began)

    async def work(busy, late):
        nonlocal began
        began = hw.now()
        await busy.loop.gather([stream(busy), once(late)])

    began = 0
    bench.run(work)
    assert done[0] < SECOND // 40
