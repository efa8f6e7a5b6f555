"""The backend's handling of requests: data, both layouts, joined I/O, refusals."""

import errno
import random

import pytest
from blkback.front import (
    BARRIER,
    CONNECTED,
    DISCARD,
    EOPNOTSUPP,
    ERROR,
    FLUSH,
    OKAY,
    PAGE,
    READ,
    SECTOR,
    SIZE,
    WRITE,
    Disk,
    Xen,
)

from pvdump.blkback import frames, instance
from xenpv import abi
from xenpv.block.blkif import X86_32, X86_64

LAYOUTS = pytest.mark.parametrize("layout", [X86_64, X86_32], ids=lambda layout: layout.protocol)


def content(size, seed=1):
    return random.Random(seed).randbytes(size)


@pytest.fixture
def front():
    return Xen().fronts[0].connect()


@LAYOUTS
@pytest.mark.parametrize("persistent", [False, True])
@pytest.mark.parametrize("indirect", [False, True])
def test_what_is_written_is_on_the_disk_and_comes_back(layout, persistent, indirect):
    front = Xen().fronts[0].connect(layout=layout, persistent=persistent)
    data = content(10 * PAGE)
    segments = front.data(data, readonly=False)
    assert front.status(WRITE, 24, segments, indirect=indirect) == OKAY
    assert front.disk.data[24 * SECTOR : 24 * SECTOR + len(data)] == data
    segments, memory = front.room(10)
    assert front.status(READ, 24, segments, indirect=indirect) == OKAY
    assert memory == data


@LAYOUTS
@pytest.mark.parametrize("pages", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("scheme", ["order", "number"])
def test_rings_of_several_pages_are_used_to_the_end_and_round(layout, pages, scheme):
    front = Xen().fronts[0].connect(pages, layout, scheme=scheme)
    segment = front.data(content(PAGE))
    for _ in range(3):
        ids = [front.put(WRITE, 8 * (i % 100), segment) for i in range(front.ring.slots)]
        assert [r[0] for r in front.kick()] == ids


def test_256_segments_go_in_one_request(front):
    data = content(256 * PAGE)
    assert front.status(WRITE, 0, front.data(data), indirect=True) == OKAY
    assert front.disk.data[: len(data)] == data


def test_parts_of_pages_are_put_together_in_order(front):
    gfn = front.pages()
    front.page(gfn)[:] = page = content(PAGE)
    ref = front.grant(gfn)
    assert front.status(WRITE, 1, [(ref, 5, 6), (ref, 0, 0), (ref, 7, 7)]) == OKAY
    wanted = page[5 * SECTOR : 7 * SECTOR] + page[:SECTOR] + page[7 * SECTOR :]
    assert front.disk.data[SECTOR : 5 * SECTOR] == wanted


class TestJoined:
    def test_requests_that_continue_each_other_are_one_write_on_joined_memory(self, front):
        data = content(20 * PAGE)
        segments = front.data(data)
        front.put(WRITE, 0, segments[:10])
        front.put(WRITE, 80, segments[10:])
        assert [r[2] for r in front.kick()] == [OKAY, OKAY]
        assert front.disk.ios == [("write", 0, [20 * PAGE])]
        assert front.disk.data[: len(data)] == data

    @pytest.mark.parametrize(("op", "sector"), [(READ, 8), (WRITE, 16), (WRITE, 0)])
    def test_others_are_not(self, front, op, sector):
        front.put(WRITE, 0, front.data(content(PAGE), False))
        front.put(op, sector, front.data(content(PAGE), False))
        front.kick()
        assert len(front.disk.ios) == 2

    def test_no_io_has_more_frames_than_its_bound(self, front, monkeypatch):
        monkeypatch.setattr(instance, "JOINED", 4)
        for i in range(3):
            front.put(WRITE, 24 * i, front.data(content(3 * PAGE)))
        front.kick()
        assert len(front.disk.ios) == 3

    def test_nothing_is_joined_across_a_flush(self, front):
        front.put(WRITE, 0, front.data(content(PAGE)))
        front.put(FLUSH)
        front.put(WRITE, 8, front.data(content(PAGE)))
        front.kick()
        assert [io[0] for io in front.disk.ios] == ["write", "flush", "write"]

    def test_one_that_fails_does_not_fail_the_others(self, front):
        front.disk.refuses = range(PAGE, 2 * PAGE)
        data = content(3 * PAGE)
        for i, segment in enumerate(front.data(data)):
            front.put(WRITE, 8 * i, [segment])
        assert [r[2] for r in front.kick()] == [OKAY, ERROR, OKAY]
        assert front.disk.data[2 * PAGE : 3 * PAGE] == data[2 * PAGE :]

    def test_one_whose_grant_is_bad_does_not_fail_the_others(self, front):
        good = front.data(content(2 * PAGE))
        front.put(WRITE, 0, [good[0]])
        front.put(WRITE, 8, [(500, 0, 7)])
        front.put(WRITE, 16, [good[1]])
        assert [r[2] for r in front.kick()] == [OKAY, ERROR, OKAY]


class TestOrder:
    def test_a_flush_makes_what_was_written_before_last(self, front):
        data = content(PAGE)
        front.put(WRITE, 0, front.data(data))
        front.put(FLUSH)
        front.kick()
        assert front.disk.stable[:PAGE] == data

    def test_a_barrier_flushes_before_and_after_its_data(self, front):
        assert front.status(BARRIER, 0, front.data(content(PAGE))) == OKAY
        assert [io[0] for io in front.disk.ios] == ["flush", "write", "flush"]

    def test_a_discard_goes_to_the_disk(self, front):
        front.disk.data[:] = content(SIZE)
        assert front.status(DISCARD, 8, count=16) == OKAY
        assert not any(front.disk.data[8 * SECTOR : 24 * SECTOR])

    @pytest.mark.parametrize("number", [errno.EOPNOTSUPP, errno.ENOTTY])
    def test_a_disk_that_cannot_discard_says_so(self, front, number):
        front.disk.errors = [OSError(number, "no")]
        assert front.status(DISCARD, 0, count=8) == EOPNOTSUPP


class TestPersistent:
    def test_frames_stay_mapped_and_are_mapped_once(self):
        front = Xen().fronts[0].connect(persistent=True)
        segments = front.data(content(4 * PAGE), readonly=False)
        for _ in range(3):
            assert front.status(WRITE, 0, segments) == OKAY
        assert front.mapped() == 1 + 4

    def test_without_the_key_nothing_stays_mapped(self, front):
        front.status(WRITE, 0, front.data(content(4 * PAGE)))
        assert front.mapped() == 1

    def test_what_is_over_the_bound_is_mapped_for_its_io_only(self, monkeypatch):
        monkeypatch.setattr(frames, "KEPT", 4)
        front = Xen().fronts[0].connect(persistent=True)
        for i in range(3):
            assert front.status(WRITE, i * 8, front.data(content(3 * PAGE), False)) == OKAY
        assert front.mapped() == 1 + 3

    def test_a_frame_that_is_lent_to_be_read_only_is_not_kept(self):
        front = Xen().fronts[0].connect(persistent=True)
        assert front.status(WRITE, 0, front.data(content(PAGE), readonly=True)) == OKAY
        assert front.mapped() == 1

    def test_all_is_given_back_at_the_end(self):
        front = Xen().fronts[0].connect(persistent=True)
        front.status(WRITE, 0, front.data(content(4 * PAGE), False))
        front.say(6)
        assert front.mapped() == 0


class TestRefused:
    """Answered with an error, and what the disk holds is as it was."""

    @pytest.mark.parametrize("op", [4, 7, 255])
    def test_an_operation_nobody_knows(self, front, op):
        assert front.status(op, 0, front.data(content(PAGE))) == EOPNOTSUPP
        assert front.disk.ios == []

    @pytest.mark.parametrize("op", [BARRIER, FLUSH, DISCARD, 9])
    def test_an_indirect_one_of_another_kind(self, front, op):
        status = front.status(op, 0, front.data(content(PAGE)), indirect=True)
        assert status == (EOPNOTSUPP if op == 9 else ERROR)

    @pytest.mark.parametrize(("count", "indirect"), [(0, False), (12, False), (255, False)])
    def test_a_number_of_segments_that_cannot_be(self, front, count, indirect):
        assert front.status(WRITE, 0, front.data(content(PAGE)), count, indirect) == ERROR
        assert front.disk.ios == []

    @pytest.mark.parametrize("count", [0, 257, 4096, 65535])
    def test_a_number_of_indirect_segments_that_cannot_be(self, front, count):
        assert front.status(WRITE, 0, front.data(content(PAGE)), count, True) == ERROR
        assert front.disk.ios == []

    @pytest.mark.parametrize(("first", "last"), [(1, 0), (0, 8), (8, 8), (255, 255), (0, 255)])
    def test_a_segment_that_is_no_part_of_a_page(self, front, first, last):
        good = front.data(content(PAGE), readonly=False)
        ref = front.grant(front.pages())
        assert front.status(READ, 0, [*good, (ref, first, last)]) == ERROR
        assert front.disk.ios == []

    @pytest.mark.parametrize(
        "sector", [SIZE // SECTOR, SIZE // SECTOR - 7, 2**63, 2**64 - 1, 2**64 - 8]
    )
    @pytest.mark.parametrize("op", [READ, WRITE])
    def test_sectors_beyond_the_end(self, front, op, sector):
        assert front.status(op, sector, front.data(content(PAGE), False)) == ERROR
        assert front.disk.ios == []

    @pytest.mark.parametrize(("sector", "count"), [(2047, 2), (0, 2**64 - 1), (2**63, 2**63)])
    def test_a_discard_beyond_the_end(self, front, sector, count):
        assert front.status(DISCARD, sector, count=count) == ERROR
        assert front.disk.ios == []

    def test_a_secure_discard(self, front):
        at = front.ring.slot()
        entry = bytearray(front.layout.discard(7, 0, 8))
        entry[1] = 1
        front.ring.memory.view[at : at + len(entry)] = entry
        assert front.kick() == [(7, DISCARD, EOPNOTSUPP)]

    @pytest.mark.parametrize(("sector", "last"), [(1, 7), (0, 6), (4, 3)])
    def test_what_does_not_fit_the_disks_sectors(self, sector, last):
        class Large(Disk):
            sector_size = 4096

        front = Xen(disk=Large).fronts[0].connect()
        ref = front.grant(front.pages())
        assert front.status(READ, sector, [(ref, 0, last)]) == ERROR
        assert front.status(READ, 8, [(ref, 0, 7)]) == OKAY

    @pytest.mark.parametrize("op", [WRITE, BARRIER])
    def test_a_write_to_a_disk_that_is_write_protected(self, op):
        front = Xen(mode="r").fronts[0].connect()
        assert front.status(op, 0, front.data(content(PAGE))) == ERROR
        assert front.status(DISCARD, 0, count=8) == ERROR
        assert front.status(FLUSH) == OKAY
        assert not any(front.disk.data)
        assert front.back("info") == str(abi.VDISK_READONLY)

    @pytest.mark.parametrize(
        "kind", ["never granted", "out of the table", "read-only", "another's"]
    )
    @pytest.mark.parametrize("indirect", [False, True])
    def test_a_grant_that_is_none(self, front, kind, indirect):
        ref = {
            "never granted": 300,
            "out of the table": 1 << 30,
            "read-only": front.grant(front.pages(), readonly=True),
            "another's": front.grant(front.pages(), domid=5),
        }[kind]
        assert front.status(READ, 0, [(ref, 0, 7)], indirect=indirect) == ERROR
        assert front.mapped() == 1

    def test_segments_that_are_not_granted(self, front):
        at = front.ring.slot()
        entry = front.layout.indirect(READ, 4, 9, 0) + (300).to_bytes(4, "little")
        front.ring.memory.view[at : at + len(entry)] = entry
        assert front.kick() == [(9, READ, ERROR)]

    def test_the_front_end_goes_on_after_each(self, front):
        front.status(9)
        assert front.status(WRITE, 0, front.data(content(PAGE))) == OKAY
        assert front.back_state() == CONNECTED


def test_a_full_disk_is_an_error_of_those_writes_alone(front):
    front.disk.refuses = range(SIZE)
    assert front.status(WRITE, 0, front.data(content(PAGE))) == ERROR
    segments, _ = front.room(1)
    assert front.status(READ, 0, segments) == OKAY
    front.disk.refuses = range(0)
    assert front.status(WRITE, 0, front.data(content(PAGE))) == OKAY
