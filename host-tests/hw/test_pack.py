"""hw.pack: pages of memory, compressed one by one. The image's is compared in packer/."""

import struct
from array import array

import pytest
from fixtures.packcases import REFUSED, outcome
from fixtures.packing import PAGE, RUN, bitmap, contents, mixture, state, unpack
from hypothesis import given
from hypothesis import strategies as st

import hw

GFN, COUNT, BIT, USED, ENTRIES = range(5)
KINDS = contents()


class Ram:
    """RAM whose frames from 1 on are the pages."""

    def __init__(self, pages):
        self.ram = bytearray(PAGE) + bytearray(b"".join(pages))
        hw.attach(self)


def pack(pages, keep=None, room=1 << 20, slots=1 << 16):
    """Pack the pages, which are the frames from 1 on, in one call. Returns state, out, table."""
    Ram(pages)
    here, out, table = state(1, len(pages)), bytearray(room), bytearray(8 * slots)
    hw.pack(here, keep, out, table)
    return here, out, table


def entries(here, table):
    return [
        (entry & 0xFFFF, (entry >> 16) & 0xFFFF, entry >> 32)
        for (entry,) in struct.iter_unpack("<Q", table[: 8 * here[ENTRIES]])
    ]


@given(count=st.integers(0, 40), seed=st.integers(0, 1000))
def test_all_pages_come_back(count, seed):
    pages = mixture(count, seed)
    here, out, table = pack(pages)
    assert list(here[:USED]) == [1 + count, 0, count]
    assert unpack(*here[USED:], out, table) == dict(enumerate(pages, 1))


@pytest.mark.parametrize("name", sorted(set(KINDS) - {"zeros", "random"}))
def test_a_page_with_a_pattern_becomes_smaller(name):
    here, out, table = pack([KINDS[name]])
    ((size, more, pfn),) = entries(here, table)
    assert 0 < size == here[USED] < 0.6 * PAGE
    assert (more, pfn) == (0, 1)
    assert out[:4] == b"\x28\xb5\x2f\xfd"


def test_a_page_without_a_pattern_stays_as_it_is():
    here, out, table = pack([KINDS["random"]])
    assert entries(here, table) == [(PAGE, 0, 1)]
    assert out[: here[USED]] == KINDS["random"]


def test_a_page_is_a_frame_only_where_that_is_smaller():
    noise = KINDS["random"]
    sizes = {}
    for zeros in range(0, 200, 5):
        here, out, table = pack([noise[zeros:] + bytes(zeros)])
        assert unpack(*here[USED:], out, table) == {1: noise[zeros:] + bytes(zeros)}
        sizes[zeros] = here[USED]
    assert sizes[0] == max(sizes.values()) == PAGE
    assert 0 < sizes[195] < PAGE


def test_neighbours_of_zeros_are_one_entry_without_data():
    zeros, text = KINDS["zeros"], KINDS["text"]
    here, _, table = pack([zeros, zeros, zeros, text, zeros, zeros])
    found = entries(here, table)
    assert [found[0], found[2]] == [(0, 2, 1), (0, 1, 5)]
    assert here[USED] == found[1][0] > 0


def test_zeros_on_both_sides_of_a_page_that_is_passed_over_are_two_runs():
    here, _, table = pack([KINDS["zeros"]] * 3, keep=bitmap([1, 0, 1]))
    assert entries(here, table) == [(0, 0, 1), (0, 0, 3)]


def test_a_run_goes_on_in_the_next_call():
    Ram([KINDS["zeros"]] * 5)
    here, out, table = state(1, 2), bytearray(PAGE), bytearray(80)
    hw.pack(here, None, out, table)
    here[COUNT] = 3
    hw.pack(here, None, out, table)
    assert entries(here, table) == [(0, 4, 1)]


def test_a_run_has_at_most_65536_pages():
    class Zeros:
        ram = bytearray((RUN + 3) * PAGE)

    hw.attach(Zeros())
    here, out, table = state(1, RUN + 2), bytearray(PAGE), bytearray(80)
    hw.pack(here, None, out, table)
    assert entries(here, table) == [(0, RUN - 1, 1), (0, 1, 1 + RUN)]
    assert (here[COUNT], here[USED]) == (0, 0)


@given(frames=st.lists(st.booleans(), max_size=60), base=st.integers(0, 20))
def test_only_frames_whose_bit_is_set_are_packed(frames, base):
    pages = mixture(len(frames), base)
    Ram(pages)
    here, out, table = state(1, len(pages), base), bytearray(1 << 20), bytearray(1000)
    hw.pack(here, bitmap([True] * base + frames), out, table)
    assert list(here[:USED]) == [1 + len(pages), 0, base + len(pages)]
    assert unpack(*here[USED:], out, table) == {
        gfn: page for gfn, (page, kept) in enumerate(zip(pages, frames, strict=True), 1) if kept
    }


def test_bits_behind_the_last_frame_do_not_count():
    here, _, _ = pack([KINDS["text"]] * 3, keep=b"\xf8")
    assert list(here) == [4, 0, 3, 0, 0]


@given(
    seed=st.integers(0, 100),
    room=st.integers(PAGE, 5 * PAGE),
    slots=st.integers(1, 9),
    data=st.data(),
)
def test_many_small_chunks_hold_what_one_large_one_does(seed, room, slots, data):
    pages = mixture(40, seed)
    frames = data.draw(st.lists(st.booleans(), min_size=40, max_size=40))
    Ram(pages)
    here, found = state(1, 40), {}
    while here[COUNT]:
        out, table = bytearray(room), bytearray(8 * slots)
        here[USED] = here[ENTRIES] = 0
        hw.pack(here, bitmap(frames), out, table)
        assert here[ENTRIES] or not here[COUNT]
        if here[COUNT]:
            assert room - here[USED] < PAGE or here[ENTRIES] == slots
        found.update(unpack(*here[USED:], out, table))
    assert found == {
        gfn: page for gfn, (page, kept) in enumerate(zip(pages, frames, strict=True), 1) if kept
    }


@pytest.mark.parametrize(
    ("room", "slots", "packed"),
    [(PAGE - 1, 9, 0), (PAGE, 9, 1), (2 * PAGE - 1, 9, 1), (9 * PAGE, 2, 2)],
)
def test_it_stops_before_a_page_that_might_not_fit(room, slots, packed):
    here, out, table = pack([KINDS["random"]] * 3, room=room, slots=slots)
    assert list(here) == [1 + packed, 3 - packed, packed, packed * PAGE, packed]
    assert out[packed * PAGE :] == bytes(room - packed * PAGE)
    assert table[8 * packed :] == bytes(8 * (slots - packed))


def test_a_full_chunk_still_passes_over_what_is_not_kept():
    here, _, _ = pack([KINDS["random"]] * 20, keep=bitmap([1] + [0] * 19), room=PAGE)
    assert list(here[:USED]) == [21, 0, 20]


def test_what_a_call_leaves_does_not_change_the_next():
    first = pack([KINDS["pointers"], KINDS["text"]])
    pack(mixture(30, 7))
    assert pack([KINDS["pointers"], KINDS["text"]]) == first


def test_out_and_table_may_be_at_any_address():
    pages = mixture(20)
    Ram(pages)
    here, out, table = state(1, 20), memoryview(bytearray(1 << 18)), memoryview(bytearray(999))
    hw.pack(here, None, out[3:], table[1:])
    assert unpack(*here[USED:], out[3:], table[1:]) == dict(enumerate(pages, 1))


@pytest.mark.parametrize(
    "numbers", [[4, 1, 0, 0, 0], [1, 4, 0, 0, 0], [5, 0, 0, 0, 0]], ids=["first", "last", "none"]
)
def test_a_frame_behind_the_ram_is_refused(numbers):
    Ram([KINDS["text"]] * 3)
    with pytest.raises(ValueError, match="outside the RAM of 0x4000 bytes"):
        hw.pack(array("Q", numbers), None, bytearray(PAGE), bytearray(80))


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_is_refused_and_nothing_is_written(name):
    Ram([KINDS["text"]] * 7)
    assert outcome(*REFUSED[name][:2]) == REFUSED[name][2]


def test_a_state_with_a_part_of_a_sixth_number_is_refused():
    Ram([KINDS["text"]])
    with pytest.raises(ValueError, match="not five numbers"):
        hw.pack(array("I", [0] * 11), None, bytearray(PAGE), bytearray(80))
