"""A dump on XCP-ng: to a disk as tapback offers it, after a soft reset that leaves disks alone."""

import pytest
from fixtures import streamreader
from fixtures.crashedguest import SIZE, Crash

from pvfw import superblock
from pvxen.crashedkernel import CrashedKernel
from pvxen.toolstack import SERVERS
from xenpv import abi
from xenpv.block.blkif import SECTOR

READ, WRITE, BARRIER = abi.BLKIF_OP_READ, abi.BLKIF_OP_WRITE, abi.BLKIF_OP_WRITE_BARRIER


@pytest.fixture
def crash():
    crash = Crash(tapback=True)
    assert crash.run() == abi.SHUTDOWN_poweroff
    return crash


def assert_complete(crash):
    assert crash.superblock().state == superblock.COMPLETE
    assert streamreader.read(bytes(crash.disk.data)).whole


def test_the_dump_is_complete(crash):
    assert_complete(crash)


def test_no_request_is_made_that_it_does_not_know(crash):
    assert {request.op for request in crash.back.seen} == {READ, WRITE, BARRIER}
    assert not any(request.is_indirect for request in crash.back.seen)
    assert max(request.count for request in crash.back.seen) == 11


def test_a_barrier_stands_between_the_dump_and_the_superblock_that_says_complete(crash):
    copy = SIZE // SECTOR - 8  # of the superblock
    writes = [(request.op, request.sector) for request in crash.back.seen if request.op != READ]
    last = max(i for i, (_, sector) in enumerate(writes) if 0 < sector < copy)
    # The barrier is one more write of what is there already.
    assert [op for op, _ in writes[last + 1 :]] == [BARRIER, WRITE, WRITE, BARRIER]


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("features", [0, abi.XENSTORE_SERVER_FEATURE_RECONNECTION])
def test_a_disk_that_is_still_connected_after_the_reset_is_taken_over(server, features):
    guest = {"server": server, "server_features": features, "start": (0x3B5, 0x349)}
    crash = Crash(guest=guest, tapback=True)
    crashed = CrashedKernel(crash.guest)
    crashed.use_fifo()
    crashed.connect(crash.back)
    crashed.write_in_flight(crash.back, 8000, b"\xaa" * 4096)
    crash.guest.machine.shutdown(abi.SHUTDOWN_soft_reset)
    crash.guest.xen.reintroduce(1)
    assert crash.back.state == abi.XenbusStateConnected
    assert crash.run() == abi.SHUTDOWN_poweroff
    assert_complete(crash)
