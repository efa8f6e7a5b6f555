"""What a backend offers, key by key: absent, senseless or unusual, and what the disk is then."""

import dataclasses
import errno
import random

import pytest

import hw
from pvdump.blkback.device import Device as BackDevice
from pvdump.blkback.negotiate import OFFERS, PROPERTIES
from pvdump.xen.guest import Guest
from pvdump.xen.sink import Memory
from xenpv import abi
from xenpv.blkfront import BlkFront
from xenpv.blkneg import Limits
from xenpv.errors import BackendError
from xenpv.evtchn import EventChannels
from xenpv.gnttab import GrantTable
from xenpv.hypercall import Hypercalls
from xenpv.schedpoll import PollLoop
from xenpv.xenbus import Device
from xenpv.xenstore import Xenstore
from xenpv.xs_ring import RingTransport

SIZE = 8 << 20
PAGE = 4096
GFN, BACK_GFN = 0x200, 0x480
PAGES = 600
KEYS = sorted({*OFFERS, *PROPERTIES} - {"sectors", "discard-secure"})


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
        xen = Hypercalls()
        loop = PollLoop(xen, EventChannels(xen))
        store = Xenstore(loop, RingTransport(xen, loop))
        self.grants = GrantTable(xen)

        async def main():
            await store.connect()
            device = Device(store, loop, "device/vbd/51728")
            await device.find()
            disk = BlkFront(
                loop, self.grants, device, None, self.buffers, self.said.append, self.limits
            )
            await disk.connect()
            result = await work(disk)
            await disk.close()
            return result

        return loop.run(main())

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


def test_all_that_our_backend_offers_is_used():
    limits = Bench().run(round_trip)
    assert (limits.pages, limits.requests, limits.segments) == (4, 128, 256)


@pytest.mark.parametrize("key", KEYS)
def test_a_key_that_is_absent_stands_in_no_ones_way(key):
    Bench({key: None}).run(round_trip)


def test_a_backend_that_says_nothing_but_its_size_has_a_disk():
    bench = Bench(dict.fromkeys(KEYS))
    limits = bench.run(round_trip)
    assert (limits.pages, limits.requests, limits.segments) == (1, 32, 11)
    assert bench.said == [
        "device/vbd/51728: pages 4 reduced to 1",
        "device/vbd/51728: requests 128 reduced to 32",
        "device/vbd/51728: segments 256 reduced to 11",
    ]


@pytest.mark.parametrize("value", ["x", "-1", "1 ", "0x10", "9" * 30, str(1 << 40)])
@pytest.mark.parametrize("key", sorted({*KEYS} - {"sector-size"}))
def test_an_optional_key_without_a_sense_is_taken_as_absent_and_told(key, value):
    bench = Bench({key: value})
    bench.run(round_trip)
    assert f"device/vbd/51728: {key} is '{value}', taken as absent" in bench.said


@pytest.mark.parametrize("key", KEYS)
def test_an_empty_key_is_an_absent_one(key):
    bench = Bench({key: ""})
    bench.run(round_trip)
    assert not [line for line in bench.said if "taken as absent" in line]


@pytest.mark.parametrize("key", ["feature-persistent", "feature-flush-cache", "feature-discard"])
def test_a_feature_is_there_or_not_and_nothing_else(key):
    bench = Bench({key: "2"})
    bench.run(round_trip)
    assert f"device/vbd/51728: {key} is '2', taken as absent" in bench.said


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("sectors", None),
        ("sectors", ""),
        ("sectors", "many"),
        ("sectors", "-5"),
        ("sectors", str(1 << 60)),
        ("sector-size", "many"),
        ("sector-size", "0"),
        ("sector-size", "65536"),
    ],
)
def test_without_its_size_or_unit_a_disk_is_refused_and_left_closed(key, value):
    bench = Bench({key: value})
    with pytest.raises(BackendError, match=f"51728: backend's {key} is '{value or ''}'; a number"):
        bench.run(round_trip)
    assert bench.front("state") == str(abi.XenbusStateInitialising)
    assert bench.guest.machine.gnttab.mappings == []


# Ring and requests.


@pytest.mark.parametrize(
    ("other", "keys"),
    [
        ({}, {"ring-page-order": "2", "num-ring-pages": "", "ring-ref": ""}),
        (
            {"max-ring-page-order": None},
            {"ring-page-order": "", "num-ring-pages": "4", "ring-ref": ""},
        ),
        (
            {"max-ring-page-order": None, "max-ring-pages": None},
            {"ring-page-order": "", "num-ring-pages": "", "ring-ref0": ""},
        ),
        ({"max-ring-page-order": 0, "max-ring-pages": 1}, {"ring-page-order": ""}),
        ({"max-ring-page-order": 1, "max-ring-pages": None}, {"ring-page-order": "1"}),
    ],
)
def test_the_ring_is_named_by_the_scheme_that_the_backend_offers(other, keys):
    bench = Bench(other)

    async def work(disk):
        await round_trip(disk)
        return {key: bench.front(key) for key in keys}

    assert bench.run(work) == keys


@pytest.mark.parametrize(
    ("other", "pages"),
    [
        ({"feature-max-indirect-segments": 32}, 32),
        ({"feature-max-indirect-segments": 8}, 11),
        ({"max-request-segments": 5}, 5),
        ({"max-request-segments": 128}, 256),
        ({"max-request-size": 3 * PAGE}, 3),
        ({"max-request-size": 40 * PAGE}, 40),
    ],
)
def test_no_request_is_larger_than_the_backend_says(other, pages):
    bench = Bench(other)
    sizes = []

    async def work(disk):
        submit = disk._queue._link.submit
        disk._queue._link.submit = lambda part: (sizes.append(part.segments), submit(part))
        return await round_trip(disk)

    assert bench.run(work).segments == pages
    assert max(sizes) == pages


def test_no_more_requests_are_in_flight_than_the_backend_says():
    bench = Bench({"max-requests": 3, "feature-max-indirect-segments": None})
    most = 0

    async def work(disk):
        nonlocal most
        for i in range(40):
            await disk.write(i * 8, GFN + i, 8)
            most = max(most, disk._queue.in_flight())
        await disk.drain()

    bench.run(work)
    assert most == 3
    assert "device/vbd/51728: requests 128 reduced to 3" in bench.said


def test_what_we_want_less_of_is_no_reduction():
    bench = Bench(limits=Limits(1, 8, 11))
    assert bench.run(round_trip).segments == 11
    assert bench.said == []


# What the disk is.


class Sparse(Memory):
    """A disk larger than any memory: what was written, by offset."""

    def __init__(self, size):
        super().__init__(0)
        self.size = size
        self.pages = {}

    def write(self, offset, buffers):
        data = b"".join(bytes(buffer) for buffer in buffers)
        for at in range(0, len(data), 512):
            self.pages[offset + at] = data[at : at + 512]

    def read(self, offset, buffers):
        for buffer in buffers:
            for at in range(0, len(buffer), 512):
                buffer[at : at + 512] = self.pages.get(offset + at, bytes(512))
            offset += len(buffer)


@pytest.mark.parametrize("sector", [(1 << 32) - 64, (1 << 32) + 8, 1 << 40])
def test_sectors_above_32_bits_are_where_they_belong(sector):
    sink = Sparse(((1 << 40) + (1 << 20)) * 512)
    bench = Bench(sink=sink)

    async def work(disk):
        assert disk.sectors == (1 << 40) + (1 << 20)
        data = random.Random(6).randbytes(32 * PAGE)
        hw.mem(GFN * PAGE, len(data))[:] = data
        await disk.write(sector, GFN, 32 * 8)
        await disk.drain()
        assert disk.acknowledged(sector) == sector + 32 * 8
        await disk.read(sector, BACK_GFN, 32 * 8)
        await disk.drain()
        assert hw.mem(BACK_GFN * PAGE, len(data)) == data

    bench.run(work)
    assert min(sink.pages) == sector * 512


@pytest.mark.parametrize(
    ("other", "mode", "read_only", "removable"),
    [
        ({}, "w", False, False),
        ({}, "r", True, False),
        ({"info": abi.VDISK_READONLY}, "w", True, False),
        ({"info": abi.VDISK_REMOVABLE}, "w", False, True),
        ({"info": 0xFFFFFFFF}, "w", True, True),
        ({"info": None}, "r", True, False),
        ({"info": None}, "w", False, False),
    ],
)
def test_what_is_read_only_or_removable_is_known(other, mode, read_only, removable):
    async def work(disk):
        return disk.read_only, disk.removable

    assert Bench(other, mode=mode).run(work) == (read_only, removable)


@pytest.mark.parametrize(
    ("size", "physical", "found"),
    [
        (512, 4096, 4096),
        (512, 512, 512),
        (512, None, 512),
        (512, 1000, 512),
        (512, 65536, 512),
        (4096, 512, 4096),
    ],
)
def test_a_physical_block_is_no_smaller_than_a_sector_and_fits_a_page(size, physical, found):
    async def work(disk):
        return disk.properties.physical_size

    bench = Bench({"sector-size": size, "physical-sector-size": physical})
    assert bench.run(work) == found


def test_feature_large_sector_size_is_not_ours_and_not_left_by_another():
    bench = Bench({"sector-size": 4096})
    bench.guest.store.write(f"{bench.back.front}/feature-large-sector-size", 1)
    bench.run(round_trip)
    assert bench.front("feature-large-sector-size") == ""


# Operations.


@pytest.mark.parametrize(
    ("granularity", "alignment", "asked", "done"),
    [
        (4096, 0, (8, 16), [(8, 16)]),
        (4096, 0, (9, 16), [(16, 8)]),
        (4096, 0, (9, 7), []),
        (4096, 512, (0, 17), [(1, 16)]),
        (4096, 512, (8, 9), [(9, 8)]),
        (None, None, (3, 5), [(3, 5)]),
        (1 << 20, 0, (0, 4096), [(0, 4096)]),
        (0, 0, (3, 5), [(3, 5)]),
    ],
)
def test_only_whole_extents_are_discarded(granularity, alignment, asked, done):
    bench = Bench({"discard-granularity": granularity, "discard-alignment": alignment})
    bench.sink.granularity = 512
    found = []
    bench.sink.discard = lambda offset, length: found.append((offset // 512, length // 512))

    async def work(disk):
        await disk.discard(*asked)
        await disk.drain()

    bench.run(work)
    assert found == done


def refuse(offset, length):
    raise OSError(errno.EOPNOTSUPP, "no such operation")


def test_a_discard_that_the_backend_refuses_after_all_is_told_once_and_not_asked_again():
    bench = Bench()
    bench.sink.discard = refuse

    async def work(disk):
        for _ in range(3):
            await disk.discard(0, 8)
            await disk.drain()
        return disk.properties.discards

    assert bench.run(work) is False
    assert [line for line in bench.said if "refuses discard" in line] == [
        "device/vbd/51728: the backend refuses discard, which it had offered"
    ]


@pytest.mark.parametrize(
    ("other", "operations"),
    [
        ({}, [abi.BLKIF_OP_FLUSH_DISKCACHE]),
        ({"feature-barrier": None}, [abi.BLKIF_OP_FLUSH_DISKCACHE]),
        ({"feature-flush-cache": None}, [abi.BLKIF_OP_WRITE_BARRIER]),
        ({"feature-flush-cache": 0, "feature-barrier": 0}, []),
    ],
)
def test_a_flush_is_the_better_of_what_is_offered(other, operations):
    bench = Bench(other)

    async def work(disk):
        hw.mem(GFN * PAGE, PAGE)[:] = b"kept" * 1024
        await disk.write(80, GFN, 8)
        await disk.flush()
        return list(disk.properties.flushes[:1])

    assert bench.run(work) == operations
    assert bench.sink.data[80 * 512 : 81 * 512] == b"kept" * 128
    assert bool(bench.sink.flushes) == bool(operations)


# Buffers that stay granted, and a grant table with little room.


@pytest.mark.parametrize("offered", [1, 0, None])
def test_buffers_stay_granted_where_the_backend_offers_to_keep_them(offered):
    bench = Bench({"feature-persistent": offered}, buffers=8)

    async def work(disk):
        await round_trip(disk)
        return disk.persistent, disk.limits.segments

    assert bench.run(work) == ((True, 11) if offered else (False, 256))
    assert bench.front("feature-persistent") == ""
    assert bench.grants.set_aside == 0


@pytest.mark.parametrize("free", [1, 2, 4, 8, 16, 20, 30, 100])
@pytest.mark.parametrize("buffers", [0, 2])
def test_with_few_grant_entries_the_disk_works_with_what_there_is(free, buffers):
    bench = Bench(buffers=buffers, gnttab_max_frames=1)
    for ref in range(abi.GNTTAB_NR_RESERVED_ENTRIES, 512 - free):
        bench.guest.machine.gnttab.set_entry(ref, abi.GTF_permit_access, 0, 0x30)
    if free == 1:
        with pytest.raises(BackendError, match="the grant table has no entry left for data"):
            bench.run(round_trip)
    else:
        limits = bench.run(round_trip)
        assert 0 < limits.segments < free
        assert any("segments 256 reduced to" in line for line in bench.said)
    assert bench.grants.free() == free


def test_requests_of_a_mib_are_in_flight_eight_at_a_time_where_the_table_can_grow():
    bench = Bench(gnttab_frames=1, gnttab_max_frames=32)
    held = []
    bench.sink.write = lambda offset, buffers: held.append(len(bench.guest.machine.gnttab.mappings))
    most = 0

    async def work(disk):
        nonlocal most
        for i in range(12):
            await disk.write(i * 2048 % 8192, GFN, 2048)
            most = max(most, disk._queue.in_flight())
        await disk.drain()

    bench.run(work)
    assert most == 8
    assert len(bench.guest.machine.gnttab.frames) < 8
