"""Operations that depend on the backend's offers or on the grant table's room."""

import errno

import pytest
from fixtures.offeringbackend import GFN, PAGE, OfferingDisk, round_trip

import hw
from pvxen.hypervisor import DOM0
from xenpv import abi
from xenpv.errors import BackendError


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
    bench = OfferingDisk({"discard-granularity": granularity, "discard-alignment": alignment})
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


def test_a_refused_discard_is_reported_once_and_not_sent_again():
    bench = OfferingDisk()
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
    bench = OfferingDisk(other)

    async def work(disk):
        hw.mem(GFN * PAGE, PAGE)[:] = b"kept" * 1024
        await disk.write(80, GFN, 8)
        await disk.flush()
        return list(disk.properties.flushes[:1])

    assert bench.run(work) == operations
    assert bench.sink.data[80 * 512 : 81 * 512] == b"kept" * 128
    assert bool(bench.sink.flushes) == bool(operations)


def test_a_page_of_ours_that_the_backend_keeps_mapped_is_not_given_back():
    bench = OfferingDisk({"feature-flush-cache": None})
    machine = bench.guest.machine

    async def work(disk):
        requests = disk.connection.requests
        page, submit = requests.memory.scratch, requests.submit

        def submit_and_keep(part):
            submit(part)
            for index, kept in enumerate(requests.parts):
                if kept is not None and part.gfn * PAGE == page:
                    machine.gnttab.map(hw.rd32(requests._refs(index)), DOM0, False)
                    requests.submit = submit

        requests.submit = submit_and_keep
        await disk.write(80, GFN, 8)
        await disk.flush()
        return page

    page = bench.run(work)
    assert bench.grants.set_aside == 1
    assert machine._taken[(page - machine.region[0]) // PAGE] == 1


# Buffers that stay granted, and a grant table with little room.


@pytest.mark.parametrize("offered", [1, 0, None])
def test_buffers_stay_granted_where_the_backend_offers_to_keep_them(offered):
    bench = OfferingDisk({"feature-persistent": offered}, buffers=8)

    async def work(disk):
        await round_trip(disk)
        return disk.persistent, disk.limits.segments

    assert bench.run(work) == ((True, 11) if offered else (False, 256))
    assert bench.front("feature-persistent") == ""
    assert bench.grants.set_aside == 0


@pytest.mark.parametrize("free", [1, 2, 4, 8, 16, 20, 30, 100])
@pytest.mark.parametrize("buffers", [0, 2])
def test_with_few_grant_entries_the_disk_works_with_what_there_is(free, buffers):
    bench = OfferingDisk(buffers=buffers, gnttab_max_frames=1)
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
    bench = OfferingDisk(gnttab_frames=1, gnttab_max_frames=32)
    held = []
    bench.sink.write = lambda offset, buffers: held.append(len(bench.guest.machine.gnttab.mappings))
    most = 0

    async def work(disk):
        nonlocal most
        for i in range(12):
            await disk.write(i * 2048 % 8192, GFN, 2048)
            most = max(most, disk.queue.in_flight())
        await disk.drain()

    bench.run(work)
    assert most == 8
    assert len(bench.guest.machine.gnttab.frames) < 8
