"""Reads and writes that the kernel has under way beside each other."""

import errno
import os
import random
import resource
import select

import pytest
from blkback.front import PAGE

from pvdump.blkback.aio import DEPTH, Aio
from pvdump.blkback.ports import Stalled
from pvdump.blkback.sink import open_sink
from pvdump.blkback.transfer import Transfer

PAGES = 80


@pytest.fixture
def disk(tmp_path):
    path = tmp_path / "disk"
    path.write_bytes(random.Random(1).randbytes(PAGES * PAGE))
    sink = open_sink(str(path), False, False)
    sink.path = path
    yield sink
    sink.close()


@pytest.fixture
def bell():
    fd = os.eventfd(0)
    yield fd
    os.close(fd)


@pytest.fixture
def aio(disk, bell):
    queue = Aio(disk._fd, bell)
    yield queue
    queue.close()


def transfer(disk, page, buffers, reads=True):
    size = sum(map(len, buffers))
    return Transfer(disk, [], reads, page * PAGE, size, None, list(map(memoryview, buffers)))


def wait(aio, bell, count):
    found = []
    while len(found) < count:
        select.select([bell], [], [])
        os.eventfd_read(bell)
        found += aio.over()
    return found


def test_memory_may_be_named_beforehand(disk, aio, bell):
    pages = [bytearray(PAGE) for _ in range(5)]
    move = transfer(disk, 3, pages)
    order = [4, 0, 2, 1, 3]
    move.vectors = b"".join(aio.vector(memoryview(pages[i])) for i in order)
    assert aio.begin([move]) == 1
    wait(aio, bell, 1)
    move.end()
    assert b"".join(pages[i] for i in order) == disk.path.read_bytes()[3 * PAGE : 8 * PAGE]


def test_each_read_finds_its_own_and_rings_the_bell(disk, aio, bell):
    order = random.Random(2).sample(range(PAGES), DEPTH)
    wanted = {page: bytearray(PAGE) for page in order}
    transfers = [transfer(disk, page, [buffer]) for page, buffer in wanted.items()]
    assert aio.begin(transfers) == DEPTH
    assert set(map(id, wait(aio, bell, DEPTH))) == set(map(id, transfers))
    data = disk.path.read_bytes()
    assert all(data[page * PAGE : (page + 1) * PAGE] == wanted[page] for page in order)


def test_a_write_gathers_its_pieces(disk, aio, bell):
    pieces = [bytes([i]) * 512 for i in range(20)]
    aio.begin([transfer(disk, 3, pieces, reads=False)])
    (done,) = wait(aio, bell, 1)
    assert done.error is None
    assert disk.path.read_bytes()[3 * PAGE : 3 * PAGE + 20 * 512] == b"".join(pieces)


def test_what_the_kernel_did_in_part_is_done_to_its_end(disk, aio, bell):
    os.truncate(disk.path, PAGE)
    aio.begin([transfer(disk, 0, [bytearray(2 * PAGE)])])
    (done,) = wait(aio, bell, 1)
    assert "shorter" in str(done.error)


def test_what_the_kernel_does_not_begin_is_left_to_the_caller(disk, bell):
    fd = os.open(disk.path, os.O_RDONLY)
    aio = Aio(fd, bell)
    read, write = transfer(disk, 0, [bytearray(PAGE)]), transfer(disk, 0, [bytes(PAGE)], False)
    assert aio.begin([write]) == 0
    assert aio.begin([read, write, read]) == 1
    assert wait(aio, bell, 1) == [read]
    aio.close()
    os.close(fd)


def test_a_failure_is_the_transfers(disk, aio, bell):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (PAGE, limits[1]))
    try:
        inside, beyond = (transfer(disk, page, [bytes(PAGE)], False) for page in (0, 1))
        assert aio.begin([beyond, inside]) == 2
        wait(aio, bell, 2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert inside.error is None
    assert beyond.error.errno == errno.EFBIG


def test_a_kernel_without_room_for_it_is_waited_for(monkeypatch, disk, bell):
    monkeypatch.setattr("pvdump.blkback.aio.DEPTH", 1 << 30)
    with pytest.raises(Stalled, match="io_setup"):
        Aio(disk._fd, bell)
