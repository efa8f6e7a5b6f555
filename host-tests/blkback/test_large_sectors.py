"""Disks of sectors larger than 512 bytes, for front ends that count in either unit."""

import random

import pytest
from blkback.front import (
    CLOSING,
    DISCARD,
    ERROR,
    INITIALISED,
    OKAY,
    PAGE,
    READ,
    WRITE,
    Disk,
    Xen,
)

from xenpv.block.blkif import X86_32, X86_64

SIZES = pytest.mark.parametrize("size", [1024, 2048, 4096])


def front_of(size, large, **options):
    """A front end on a disk of such sectors. large: whether it counts in them."""
    disk = type("Large", (Disk,), {"sector_size": size, "physical": 4096})
    front = Xen(disk=disk).fronts[0]
    if large:
        front.write("feature-large-sector-size", 1)
    return front.connect(**options)


def content(size):
    return random.Random(1).randbytes(size)


@SIZES
def test_the_disks_size_is_told_in_the_front_ends_unit(size):
    assert front_of(size, True).back("sectors") == str((1 << 20) // size)
    assert front_of(size, False).back("sectors") == str((1 << 20) // 512)
    assert front_of(size, True).back("sector-size") == str(size)


@SIZES
@pytest.mark.parametrize("layout", [X86_64, X86_32], ids=lambda layout: layout.protocol)
@pytest.mark.parametrize("indirect", [False, True])
@pytest.mark.parametrize("persistent", [False, True])
def test_what_it_writes_is_where_it_counts_and_whole(size, layout, indirect, persistent):
    front = front_of(size, True, layout=layout, persistent=persistent)
    data, last = content(3 * PAGE), PAGE // size - 1
    segments = [(ref, 0, last) for ref, _, _ in front.data(data, readonly=False)]
    assert front.status(WRITE, 5, segments, indirect=indirect) == OKAY
    assert front.disk.data[5 * size : 5 * size + len(data)] == data
    into, memory = front.room(3)
    into = [(ref, 0, last) for ref, _, _ in into]
    assert front.status(READ, 5, into, indirect=indirect) == OKAY
    assert memory == data


@pytest.mark.parametrize("size", [1024, 2048])
def test_a_part_of_a_page_is_counted_in_its_unit(size):
    front = front_of(size, True)
    data = content(PAGE)
    ((ref, _, _),) = front.data(data)
    assert front.status(WRITE, 3, [(ref, 1, 1)]) == OKAY
    assert front.disk.data[3 * size : 4 * size] == data[size : 2 * size]
    assert front.disk.data[4 * size : 5 * size] == bytes(size)


@SIZES
@pytest.mark.parametrize("past", [0, 1, 100, 247])
def test_a_segment_beyond_its_page_is_refused(size, past):
    front = front_of(size, True)
    ((ref, _, _),) = front.data(bytes(PAGE))
    beyond = PAGE // size + past
    assert front.status(WRITE, 0, [(ref, 0, beyond)]) == ERROR
    assert front.status(WRITE, 0, [(ref, beyond, beyond)]) == ERROR
    assert front.disk.ios == []


@SIZES
def test_the_disks_end_is_where_its_unit_puts_it(size):
    front = front_of(size, True)
    end = (1 << 20) // size
    ((ref, _, _),) = front.data(bytes(PAGE))
    assert front.status(WRITE, end - 1, [(ref, 0, 0)]) == OKAY
    assert front.status(WRITE, end, [(ref, 0, 0)]) == ERROR
    assert front.status(WRITE, (1 << 64) - 1, [(ref, 0, 0)]) == ERROR


@SIZES
def test_a_discard_is_counted_in_its_unit(size):
    front = front_of(size, True)
    front.disk.data[:] = b"\1" * len(front.disk.data)
    assert front.status(DISCARD, 2, count=3) == OKAY
    assert front.disk.data[2 * size : 5 * size] == bytes(3 * size)
    assert front.disk.data[:size] == front.disk.data[5 * size : 6 * size] == b"\1" * size


@SIZES
def test_a_front_end_that_counts_in_512_bytes_has_to_keep_to_whole_sectors(size):
    front = front_of(size, False)
    ((ref, _, _),) = front.data(content(PAGE))
    assert front.status(WRITE, 8, [(ref, 0, 7)]) == OKAY
    assert front.disk.data[PAGE : 2 * PAGE] == content(PAGE)
    assert front.status(WRITE, 0, [(ref, 0, 0)]) == ERROR
    assert front.status(WRITE, 1, [(ref, 0, 7)]) == ERROR


def test_a_unit_that_is_none_is_refused():
    front = Xen().fronts[0]
    front.make_ring()
    front.write("feature-large-sector-size", 4096)
    assert front.say(INITIALISED) == CLOSING
    assert "feature-large-sector-size is '4096'" in front.error()
