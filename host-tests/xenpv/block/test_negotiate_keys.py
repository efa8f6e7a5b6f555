"""The backend's keys one by one: absent, meaningless or unusual, and the disk that results."""

import random

import pytest
from fixtures.offeringbackend import BACK_GFN, GFN, PAGE, OfferingDisk, round_trip

import hw
from pvdump.blkback.negotiate import OFFERS, PROPERTIES
from pvxen.sink import Memory
from xenpv import abi
from xenpv.block.negotiate import MAXIMA, Limits
from xenpv.errors import BackendError

MAXIMA_KEYS = {key for key, *_ in MAXIMA}
KEYS = sorted({*OFFERS, *PROPERTIES, *MAXIMA_KEYS} - {"sectors", "discard-secure"})


def test_all_that_our_backend_offers_is_used():
    limits = OfferingDisk().run(round_trip)
    assert (limits.pages, limits.requests, limits.segments) == (4, 128, 256)


@pytest.mark.parametrize("key", KEYS)
def test_a_disk_works_without_any_one_of_the_optional_keys(key):
    OfferingDisk({key: None}).run(round_trip)


def test_a_backend_that_says_nothing_but_its_size_has_a_disk():
    bench = OfferingDisk(dict.fromkeys(KEYS))
    limits = bench.run(round_trip)
    assert (limits.pages, limits.requests, limits.segments) == (1, 32, 11)
    assert bench.said == [
        "device/vbd/51728: pages 4 reduced to 1",
        "device/vbd/51728: requests 128 reduced to 32",
        "device/vbd/51728: segments 256 reduced to 11",
    ]


@pytest.mark.parametrize("value", ["x", "-1", "1 ", "0x10", "9" * 30, str(1 << 40)])
@pytest.mark.parametrize("key", sorted({*KEYS} - {"sector-size"}))
def test_an_optional_key_that_means_nothing_is_taken_as_absent_and_noted(key, value):
    bench = OfferingDisk({key: value})
    bench.run(round_trip)
    assert f"device/vbd/51728: {key} is '{value}', taken as absent" in bench.said


@pytest.mark.parametrize("key", KEYS)
def test_an_empty_key_is_an_absent_one(key):
    bench = OfferingDisk({key: ""})
    bench.run(round_trip)
    assert not [line for line in bench.said if "taken as absent" in line]


@pytest.mark.parametrize("key", ["feature-persistent", "feature-flush-cache", "feature-discard"])
def test_a_feature_is_0_or_1(key):
    bench = OfferingDisk({key: "2"})
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
    bench = OfferingDisk({key: value})
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
    bench = OfferingDisk(other)

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
        ({"max-request-segments": 128}, 128),
        ({"max-request-size": 3 * PAGE}, 3),
        ({"max-request-size": 40 * PAGE}, 40),
    ],
)
def test_no_request_is_larger_than_the_backend_says(other, pages):
    bench = OfferingDisk(other)
    sizes = []

    async def work(disk):
        requests = disk.connection.requests
        submit = requests.submit
        requests.submit = lambda part: (sizes.append(part.segments), submit(part))
        return await round_trip(disk)

    assert bench.run(work).segments == pages
    assert max(sizes) == pages


def test_no_more_requests_are_in_flight_than_the_backend_says():
    bench = OfferingDisk({"max-requests": 3, "feature-max-indirect-segments": None})
    most = 0

    async def work(disk):
        nonlocal most
        for i in range(40):
            await disk.write(i * 8, GFN + i, 8)
            most = max(most, disk.queue.in_flight())
        await disk.drain()

    bench.run(work)
    assert most == 3
    assert "device/vbd/51728: max-requests 128 reduced to 3" in bench.said


@pytest.mark.parametrize(
    ("other", "requests", "segments"),
    [
        (dict.fromkeys(MAXIMA_KEYS), 128, 256),
        ({"max-ring-page-order": 0, "max-ring-pages": 1}, 32, 256),
        ({"max-requests": 3}, 3, 256),
        ({"max-request-segments": 100}, 128, 100),
        ({"max-request-size": 5 * PAGE}, 128, 5),
        ({"max-requests": 1 << 20, "max-request-size": 1 << 30}, 128, 256),
    ],
)
def test_we_write_our_own_maxima_within_the_backend_s_and_remove_them(other, requests, segments):
    bench = OfferingDisk(other)

    async def work(disk):
        await round_trip(disk)
        return {key: bench.front(key) for key in MAXIMA_KEYS}

    assert bench.run(work) == {
        "max-requests": str(requests),
        "max-request-segments": str(segments),
        "max-request-size": str(segments * PAGE),
    }
    assert not any(bench.front(key) for key in MAXIMA_KEYS)


def test_maxima_that_another_kernel_left_are_replaced():
    bench = OfferingDisk()
    bench.guest.store.write(f"{bench.back.front}/max-requests", 7)

    async def work(disk):
        return bench.front("max-requests")

    assert bench.run(work) == "128"


def test_a_limit_below_the_backend_s_is_no_reduction():
    bench = OfferingDisk(limits=Limits(1, 8, 11))
    assert bench.run(round_trip).segments == 11
    assert bench.said == []


# What the disk is.


class Sparse(Memory):
    """A disk larger than any memory, which keeps what was written by offset."""

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
    bench = OfferingDisk(sink=sink)

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
def test_a_disk_is_known_as_read_only_or_removable(other, mode, read_only, removable):
    async def work(disk):
        return disk.read_only, disk.removable

    assert OfferingDisk(other, mode=mode).run(work) == (read_only, removable)


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

    bench = OfferingDisk({"sector-size": size, "physical-sector-size": physical})
    assert bench.run(work) == found


def test_feature_large_sector_size_is_not_written_and_is_removed_if_left():
    bench = OfferingDisk({"sector-size": 4096})
    bench.guest.store.write(f"{bench.back.front}/feature-large-sector-size", 1)
    bench.run(round_trip)
    assert bench.front("feature-large-sector-size") == ""
