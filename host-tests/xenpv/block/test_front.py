"""The block front end against a block backend that behaves, and against one that does not."""

import pytest
from fixtures.onedisk import SIZE, OneDisk

import hw
from pvxen.hypervisor import DOM0
from xenpv import abi
from xenpv.block.probe import probe
from xenpv.block.ring import FrontRing
from xenpv.errors import BackendError, RingCorrupt, Timeout
from xenpv.loop import SECOND

PATH = "device/vbd/51728"


SEEDS = [{"seed": s} for s in range(12)]


@pytest.mark.parametrize("options", [*SEEDS, {"events": "dead"}, {"server_features": 1}], ids=str)
def test_written_data_is_on_the_disk_and_comes_back(options):
    bench = OneDisk(options, reorder=True, latency=SECOND // 1000)
    gfn, data = bench.frames(300)

    async def work(disk):
        await disk.write(40, gfn, 300 * 8)
        await disk.drain()
        await disk.read(40, 0x400, 300 * 8)
        await disk.flush()
        assert disk.acknowledged(40) == 40 + 300 * 8
        await disk.close()

    bench.run(work)
    assert bench.sink.data[40 * 512 : 40 * 512 + len(data)] == data
    assert bytes(hw.mem(0x400000, len(data))) == data
    assert bench.sink.flushes == 1
    # Closed, and from there on where a new driver begins.
    assert abi.XenbusStateClosed in bench.back.states
    assert int(bench.guest.store.read(bench.back.front + "/state")) == abi.XenbusStateInitialising
    assert bench.grants.set_aside == 0
    assert bench.grants.free() == 2 * 512


def test_many_requests_are_in_flight_at_once():
    bench = OneDisk(latency=SECOND)
    gfn, _ = bench.frames(32 * 11)

    async def work(disk):
        began = hw.now()
        await disk.write(0, gfn, 32 * 11 * 8)
        await disk.drain()
        return hw.now() - began

    assert bench.run(work) < 2 * SECOND


def test_a_part_of_a_page_is_written_as_such():
    bench = OneDisk()
    gfn, data = bench.frames(2)

    async def work(disk):
        await disk.write(0, gfn, 11)
        await disk.drain()

    bench.run(work)
    assert bench.sink.data[: 11 * 512] == data[: 11 * 512]
    assert not any(bench.sink.data[11 * 512 :])


@pytest.mark.parametrize("plain", [True, False], ids=["11 segments", "indirect"])
@pytest.mark.parametrize("dies", [None, 1])
def test_a_few_frames_can_be_written_again_and_again_in_large_requests(plain, dies):
    bench = OneDisk(plain=plain, **({} if dies is None else {"dies": dies}))
    gfn, data = bench.frames(11)

    async def work(disk):
        await disk.write(8, gfn, 600 * 8 + 3, 11)
        await disk.drain()
        return disk.limits.segments

    segments = bench.run(work)
    size = segments * 4096
    total = 600 * 4096 + 3 * 512
    expected = b"".join((data * 60)[: min(size, left)] for left in range(total, 0, -size))
    assert bench.sink.data[4096 : 4096 + len(expected)] == expected
    assert not any(bench.sink.data[4096 + len(expected) :])
    if dies is None:
        assert len(bench.back.seen) == 601 // segments + 1


def test_only_frames_in_flight_are_granted_and_only_to_be_read():
    bench = OneDisk(never_answers=0)
    gfn, _ = bench.frames(3)

    async def work(disk):
        await disk.write(0, gfn, 24)
        await disk.loop.sleep(SECOND)

    bench.run(work)
    request, _ = bench.back.held[0]
    assert [first for _, first, _ in request.segments] == [0, 0, 0]
    for gref, _, _ in request.segments:
        flags = bench.guest.machine.gnttab.entry(gref)[0]
        assert flags & abi.GTF_readonly
        assert flags & abi.GTF_reading


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ({"bad_id": 5}, "response to id .* which is not in flight"),
        ({"id_twice": 5}, "which is not in flight|33 responses to 32 requests"),
        ({"bad_status": 5}, "response with status -77"),
        ({"wrong_operation": 5}, "response with operation 0 to a write"),
        ({"overflow": 5}, r"rsp_prod 0x\w+ announces \d+ responses to \d+ requests"),
        ({"error_after": 1 << 20}, r"write of sector \d+ failed: status -1 \(ERROR\)"),
        (
            {"dies": 5, "no_init_wait": True},
            "the backend left Connected, its state is Closed; .*60",
        ),
        ({"read_only": True}, "failed: status -1"),
    ],
)
def test_a_backend_that_fails_or_lies_is_named_and_nothing_hangs(fault, message):
    bench = OneDisk(**fault)
    gfn, _ = bench.frames(400)

    async def work(disk):
        await disk.write(0, gfn, 400 * 8)
        await disk.drain()

    with pytest.raises(BackendError, match=message) as caught:
        bench.run(work)
    assert PATH in str(caught.value)
    assert not isinstance(caught.value, RingCorrupt)


def test_a_backend_that_never_answers_is_given_up_after_its_time():
    bench = OneDisk(never_answers=3)
    gfn, _ = bench.frames(400)

    async def work(disk):
        await disk.write(0, gfn, 400 * 8)
        await disk.drain()

    with pytest.raises(Timeout, match="no request completed for 30 s, 32 in flight"):
        bench.run(work)


async def write_and_drain(disk, sector, gfn, count):
    await disk.write(sector, gfn, count)
    await disk.drain()


def test_the_acknowledged_sector_stops_at_the_first_failure():
    bench = OneDisk(error_after=(8 + 7 * 88) * 512, reorder=True, latency=1000)
    gfn, _ = bench.frames(400)

    async def work(disk):
        with pytest.raises(BackendError):
            await write_and_drain(disk, 8, gfn, 400 * 8)
        await disk.settle()
        assert disk.acknowledged(8) == 8 + 7 * 88
        # The disk itself is well: what failed can be recorded on it.
        await disk.write(0, gfn, 8)
        await disk.drain()

    bench.run(work)


def test_a_discard_leaves_buffers_of_our_own_and_what_lies_behind_them_alone():
    bench = OneDisk(plain=False)
    gfn, data = bench.frames(8)

    async def work(disk):
        assert disk.persistent
        await disk.discard(0, SIZE // 512)
        await disk.write(0, gfn, 64)
        await disk.drain()

    bench.run(work, buffers=1)
    assert bench.sink.data[: len(data)] == data


@pytest.mark.parametrize("answer", [0, 5, 20])
def test_a_disk_dies_with_a_reason_when_there_is_no_memory_to_take_an_answer(answer, monkeypatch):
    bench = OneDisk()
    gfn, _ = bench.frames(400)
    taken = []

    def take(requests, size):
        taken.append(size)
        if len(taken) == answer + 1:
            raise MemoryError("memory allocation failed")
        return original(requests, size)

    original = FrontRing.take
    monkeypatch.setattr(FrontRing, "take", take)

    async def work(disk):
        with pytest.raises(BackendError, match=f"^{PATH}: no memory to take .* allocation failed"):
            await write_and_drain(disk, 0, gfn, 400 * 8)
        with pytest.raises(BackendError, match="no memory to take"):
            await disk.write(0, gfn, 8)
        await disk.close()

    bench.run(work)
    assert bench.guest.machine.gnttab.mappings == []
    assert bench.grants.free() == 2 * 512


def test_an_event_that_the_backend_missed_is_sent_again():
    bench = OneDisk()
    gfn, _ = bench.frames(1)

    async def work(disk):
        channels = bench.guest.xen.evtchn
        number = int(bench.guest.store.read(bench.back.front + "/event-channel"))
        theirs = channels.port(DOM0, channels.port(1, number).remote_port)
        theirs.intercept = lambda: setattr(theirs, "intercept", None)
        began = hw.now()
        await disk.write(0, gfn, 8)
        await disk.drain()
        return hw.now() - began

    assert bench.run(work) < 3 * SECOND


def test_a_flush_that_the_backend_does_not_know_is_no_failure():
    bench = OneDisk(no_flush=True)

    async def work(disk):
        assert disk.properties.flushes == []
        disk.properties.flushes.append(abi.BLKIF_OP_FLUSH_DISKCACHE)
        await disk.flush()
        assert disk.properties.flushes == []

    bench.run(work)


def test_beyond_the_end_of_the_disk_nothing_is_asked():
    bench = OneDisk()

    async def work(disk):
        await disk.write(SIZE // 512 - 1, 0x200, 2)

    with pytest.raises(BackendError, match="the disk has 8192"):
        bench.run(work)
    assert bench.back.seen == []


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (0, "'0'; a number from 512 to 4096"),
        (8192, "'8192'; a number from 512 to 4096"),
        (513, "513; 512, 1024, 2048 or 4096"),
        (3000, "3000; 512, 1024, 2048 or 4096"),
    ],
)
def test_sectors_of_an_impossible_size_are_refused(size, expected):
    with pytest.raises(BackendError, match=f"sector-size is {expected} expected"):
        OneDisk(sector_size=size).run(None)


def test_large_sectors_are_written_whole():
    bench = OneDisk(sector_size=4096)

    async def work(disk):
        with pytest.raises(BackendError, match=r"1 sectors from 8 on, but .* units of 4096 bytes"):
            await disk.write(8, 0x200, 1)
        await probe(disk, 64)

    bench.run(work)


def test_a_request_that_fails_once_is_done_again():
    bench = OneDisk(fails=5)
    gfn, data = bench.frames(300)

    async def work(disk):
        await disk.write(0, gfn, 300 * 8)
        await disk.drain()
        assert disk.acknowledged(0) == 300 * 8

    bench.run(work)
    assert bench.sink.data[: len(data)] == data


@pytest.mark.parametrize("seed", range(10))
def test_a_backend_that_comes_back_gets_again_what_it_did_not_acknowledge(seed):
    bench = OneDisk({"seed": seed}, dies=5, latency=SECOND // 1000)
    gfn, data = bench.frames(300)

    async def work(disk):
        await disk.write(0, gfn, 300 * 8)
        await disk.flush()

    bench.run(work)
    assert bench.sink.data[: len(data)] == data
    assert bench.back.states.count(abi.XenbusStateConnected) == 2
