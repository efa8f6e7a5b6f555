"""The block front end connects to a disk that an earlier kernel has left, or that nobody serves."""

import pytest
from onedisk import Bench, assert_writes

from xenpv import abi
from xenpv.errors import BackendError, Timeout
from xenpv.loop import SECOND


@pytest.mark.parametrize("start", [0, 1000, 0xFFFFFFF0])
@pytest.mark.parametrize("features", [0, 1])
def test_a_disk_left_connected_is_taken_over(start, features):
    bench = Bench({"server_features": features})
    bench.earlier.connect(bench.back, start)
    bench.earlier.write_in_flight(bench.back, 100, b"old" * 128 + bytes(128))
    assert_writes(bench)
    connected, closing, closed, wait = (
        abi.XenbusStateConnected,
        abi.XenbusStateClosing,
        abi.XenbusStateClosed,
        abi.XenbusStateInitWait,
    )
    assert bench.back.states == [wait, connected, closing, closed, wait, connected]


def test_a_state_of_ours_that_is_none_is_taken_over():
    bench = Bench()
    bench.guest.store.write(f"{bench.back.front}/state", "x")
    assert_writes(bench)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (
            {"stuck_closing": True},
            "taking over .* is Closing after 60 s, Closed or Unknown expected",
        ),
        (
            {"ignores_closing": True},
            "is Connected after 60 s, Closing or Closed or Unknown expected",
        ),
        (
            {"no_init_wait": True},
            "starting: .* is Closed after 60 s, InitWait or Initialised expected",
        ),
    ],
)
def test_a_takeover_that_does_not_come_off_says_where_it_stood(fault, message):
    bench = Bench(**fault)
    bench.earlier.connect(bench.back)
    with pytest.raises(Timeout, match=message):
        bench.run(None)


def test_a_backend_that_refuses_while_the_earlier_kernel_s_requests_end_is_asked_again():
    bench = Bench(lingers=20 * SECOND)
    bench.earlier.connect(bench.back)
    assert_writes(bench)
    assert bench.back.fatal.endswith("pending I/O")


def test_a_backend_that_refuses_for_good_is_given_up_after_its_time():
    bench = Bench(lingers=3600 * SECOND)
    bench.earlier.connect(bench.back)
    with pytest.raises(BackendError, match="went Closing instead of Connected"):
        bench.run(None)


def test_why_a_disk_cannot_be_connected_is_not_hidden_by_why_it_cannot_be_closed():
    bench = Bench(never_connects=True, ignores_closing=True)
    with pytest.raises(Timeout, match="51728, connecting: "):
        bench.run(None)
    assert bench.grants.free() == 2 * 512


def test_what_an_earlier_driver_negotiated_is_forgotten():
    bench = Bench()
    bench.earlier.connect(bench.back)
    stale = ("ring-page-order", "ring-ref0", "multi-queue-num-queues", "feature-persistent")
    for key in (*stale, "queue-0/ring-ref"):
        bench.guest.store.write(f"{bench.back.front}/{key}", 1)
    assert_writes(bench)
    for key in (*stale, "queue-0"):
        assert not bench.guest.store.exists(f"{bench.back.front}/{key}")


def test_a_backend_that_never_connects_is_given_up():
    with pytest.raises(Timeout, match=r"connecting: .* is InitWait after 5 s"):
        Bench(never_connects=True).run(None)


def test_entries_that_an_earlier_kernel_granted_are_not_used():
    # The table is as large as it may become.
    bench = Bench({"gnttab_max_frames": 2})
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
    bench = Bench({"gnttab_frames": frames})

    async def work(disk):
        await disk.write(0, 0x200, 8)
        await disk.drain()

    bench.run(work)
    assert bench.back.seen[0].segments[0][0] >= frames * 512
