"""The block front end takes over a disk that the crashed kernel left connected."""

import pytest
from fixtures.onedisk import OneDisk, assert_writes
from fixtures.stack import XVDB

from pvxen.faults import Faults
from xenpv import abi
from xenpv.errors import Timeout
from xenpv.loop import SECOND


@pytest.mark.parametrize("start", [0, 1000, 0xFFFFFFF0])
@pytest.mark.parametrize("features", [0, 1])
def test_a_disk_left_connected_is_taken_over(start, features):
    bench = OneDisk({"server_features": features})
    bench.crashed.connect(bench.back, start)
    bench.crashed.write_in_flight(bench.back, 100, b"old" * 128 + bytes(128))
    assert_writes(bench)
    connected, closing, closed, wait = (
        abi.XenbusStateConnected,
        abi.XenbusStateClosing,
        abi.XenbusStateClosed,
        abi.XenbusStateInitWait,
    )
    assert bench.back.states == [wait, connected, closing, closed, wait, connected]


GRANTS = pytest.mark.parametrize("version", [1, 2])
LEFT = "3 requests of the crashed kernel"
WAITING = f"{XVDB}: waiting for the answers to {LEFT}"
GIVEN_UP = f"{XVDB}: {LEFT} have no answer after 60 s; closed all the same"


def left(requests, version=1, options=None, start=0, **faults):
    """A disk left connected, with requests of which the backend was not told."""
    bench = OneDisk(options, **faults)
    if version == 2:
        bench.crashed.use_grants_v2()
    bench.crashed.connect(bench.back, start)
    for i in range(requests):
        bench.crashed.write_in_flight(bench.back, 8 * (100 + i), bytes([i + 1]) * 512)
    return bench


def later(bench, seconds, do):
    """Do something to the backend later on."""
    bench.guest.machine.clock.after(seconds * SECOND, lambda: do(bench.back))


def taken_over(bench):
    """Connect the disk. Returns what was told of the crashed kernel."""

    async def work(disk):
        await disk.write(0, bench.frames(1)[0], 8)
        await disk.flush()

    said = []
    bench.run(work, say=said.append)
    return [line for line in said if "crashed" in line]


@GRANTS
@pytest.mark.parametrize("start", [0, 0xFFFFFFFE])
def test_requests_that_the_crashed_kernel_left_are_answered_before_its_connection_is_closed(
    version, start
):
    bench = left(3, version, start=start, fragile=True, latency=5 * SECOND)
    assert taken_over(bench) == [WAITING]
    for i in range(3):
        assert bench.sink.data[8 * (100 + i) * 512] == i + 1


def test_answers_that_come_at_once_are_not_reported():
    assert taken_over(left(3, fragile=True, latency=SECOND // 100)) == []


@GRANTS
def test_the_wait_is_the_same_where_the_entry_lies_in_a_frame_that_we_use(version):
    # The table cannot grow, so that all of its frames are ours by then.
    bench = left(3, version, {"gnttab_max_frames": 1}, fragile=True, latency=5 * SECOND)
    assert taken_over(bench) == [WAITING]


def test_requests_that_are_never_answered_hold_a_takeover_up_for_its_time_only():
    bench = left(3, never_answers=0)
    later(bench, 30, lambda back: setattr(back, "faults", Faults()))
    assert taken_over(bench) == [WAITING, GIVEN_UP]


def test_a_backend_that_goes_away_meanwhile_is_not_waited_for():
    bench = left(3, never_answers=0)
    later(bench, 5, lambda back: bench.guest.store.rm(back.path))
    said = []
    with pytest.raises(Timeout, match=r"starting: .* is Unknown"):
        bench.run(None, say=said.append)
    assert said == [WAITING]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("ring-ref", "511"),  # an entry that lends nothing
        ("ring-ref", "99999999999"),
        ("ring-ref", "4294967295"),
        ("ring-ref", "-1"),
        ("ring-ref", "x"),
        ("event-channel", "77"),
        ("event-channel", "4294967295"),
        ("event-channel", "x"),
    ],
)
def test_keys_of_the_crashed_kernel_that_mean_nothing_do_no_harm(key, value):
    bench = left(0)
    bench.guest.store.write(f"{bench.back.front}/{key}", value)
    assert taken_over(bench) == []


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize(
    ("flags", "domid", "frame"),
    [
        (abi.GTF_permit_access, 0, 0xFFFFFFF),  # no memory there
        (abi.GTF_permit_access, 0, 0x300),  # memory that is no ring
        (abi.GTF_permit_access, 7, 0x300),
        (3, 0, 0x300),
    ],
)
def test_an_entry_that_lends_no_ring_does_no_harm(version, flags, domid, frame):
    bench = left(0, version)
    bench.guest.machine.ram[0x300000 : 0x300000 + 4096] = b"\xa5\x5a\0\0" * 1024
    bench.guest.machine.gnttab.set_entry(200, flags, domid, frame)
    bench.guest.store.write(f"{bench.back.front}/ring-ref", 200)
    assert taken_over(bench) == []


def test_a_state_of_ours_that_is_none_is_taken_over():
    bench = OneDisk()
    bench.guest.store.write(f"{bench.back.front}/state", "x")
    assert_writes(bench)


def test_keys_that_the_crashed_kernel_negotiated_are_removed():
    bench = OneDisk()
    bench.crashed.connect(bench.back)
    stale = ("ring-page-order", "ring-ref0", "multi-queue-num-queues", "feature-persistent")
    for key in (*stale, "queue-0/ring-ref"):
        bench.guest.store.write(f"{bench.back.front}/{key}", 1)
    assert_writes(bench)
    for key in (*stale, "queue-0"):
        assert not bench.guest.store.exists(f"{bench.back.front}/{key}")


def test_entries_that_the_crashed_kernel_granted_are_not_used():
    # The table is as large as it may become.
    bench = OneDisk({"gnttab_max_frames": 2})
    grants = bench.guest.machine.gnttab
    busy = set(range(400, 512, 2))
    for ref in busy:
        grants.set_entry(ref, abi.GTF_permit_access, 0, 0x300)

    async def work(disk):
        gfn, _ = bench.frames(100)
        await disk.write(0, gfn, 800)
        await disk.drain()

    bench.run(work)
    used = {gref for request in bench.back.seen for gref, _, _ in request.segments}
    assert used
    assert not used & busy
    assert min(used) >= abi.GNTTAB_NR_RESERVED_ENTRIES


@pytest.mark.parametrize("frames", [1, 4, 32])
def test_grants_are_taken_from_the_top_of_the_table(frames):
    bench = OneDisk({"gnttab_frames": frames})

    async def work(disk):
        await disk.write(0, 0x200, 8)
        await disk.drain()

    bench.run(work)
    assert bench.back.seen[0].segments[0][0] >= frames * 512
