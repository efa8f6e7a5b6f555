"""The sector of the counter of boots."""

import binascii
import random
import struct

import pytest

from pvfw import superblock, tries
from pvfw.tries import Tries

WORDS = (0, 1, 2, 30, 31, 255, 256, 0x61616161, 0x7FFFFFFF, 0xFFFFFFFF)
A, B = b"a" * tries.KEY_SIZE, b"b" * tries.KEY_SIZE


def sector(*entered):
    made = Tries()
    for key in entered:
        made.enter(key)
    return made.encode()


def signed(raw):
    """The sector with the right CRC."""
    return raw[:508] + struct.pack("<I", binascii.crc32(raw[:508]))


def changed(offset, value):
    raw = bytearray(sector(A, B, A))
    struct.pack_into("<I", raw, offset, value)
    return signed(bytes(raw))


def test_the_layout_is_the_documented_one():
    raw = sector(A, B, A)
    assert len(raw) == 512
    assert raw[:24] == b"PVTRIES\n" + struct.pack("<IIII", 1, 1, 1, 2)
    assert raw[24:56] == A + struct.pack("<I", 2) + B + struct.pack("<I", 1)
    assert raw[56:508] == bytes(452)
    assert raw[508:] == struct.pack("<I", binascii.crc32(raw[:508]))


def test_it_stands_where_neither_superblock_nor_dump_is():
    assert tries.AT >= superblock.SUPERBLOCK_SIZE
    assert tries.AT % 4096 == 0
    assert tries.AT + tries.PAGE <= superblock.DATA_OFFSET


def test_what_was_counted_is_read():
    found = tries.decode(sector(A, B, A))
    assert (found.count(A), found.count(B), found.is_open, found.problem) == (2, 1, True, "")


def test_an_end_takes_the_last_one_back_and_leaves_the_others():
    found = tries.decode(sector(A, B, B))
    found.end()
    assert (found.records, found.is_open) == ([(A, 1)], False)
    # Nothing has begun since.
    found.end()
    assert found.records == [(A, 1)]


def test_each_write_has_another_generation():
    made = Tries()
    assert [tries.decode(made.encode()).generation for _ in range(3)] == [1, 2, 3]
    made.generation = 0xFFFFFFFF
    assert tries.decode(made.encode()).generation == 0


def test_counts_and_records_are_bounded():
    made = Tries()
    for i in range(tries.RECORDS_MAX + 5):
        made.enter(b"%012d" % i)
    for _ in range(tries.COUNT_MAX + 5):
        made.enter(A)
    found = tries.decode(made.encode())
    assert found.count(A) == tries.COUNT_MAX
    assert len(found.records) == tries.RECORDS_MAX
    assert found.records[1][0] == b"%012d" % (tries.RECORDS_MAX + 4)


@pytest.mark.parametrize(
    "raw",
    [
        changed(16, 2),
        changed(20, 31),
        changed(20, 0xFFFFFFFF),
        changed(20, 0),
        changed(24 + 12, 0),
        changed(24 + 12, 256),
        signed(sector(A)[:20] + struct.pack("<I", 2) + sector(A)[24:40] * 2 + bytes(452)),
        sector(A)[:100] + b"\1" + sector(A)[101:],
        sector(A)[:256] + bytes(256),
        tries.MAGIC + bytes(504),
        tries.MAGIC + b"\xff" * 504,
    ],
)
def test_a_torn_or_lying_sector_counts_nothing(raw):
    found = tries.decode(raw)
    assert (found.records, found.is_open) == ([], False)
    assert found.problem.startswith("damaged")


@pytest.mark.parametrize("raw", [b"", bytes(512), b"PVTRIES\n", changed(8, 2), b"x" * 512])
def test_what_is_none_or_of_another_version_is_no_counter(raw):
    assert tries.decode(raw) is None


def test_whatever_stands_there_is_a_counter_within_its_bounds_or_none():
    draw = random.Random(1)
    whole = sector(A, B, A)
    told = set()
    for _ in range(3000):
        raw = bytearray(whole)
        for _ in range(draw.choice((1, 2, 8))):
            struct.pack_into("<I", raw, draw.randrange(0, 64), draw.choice(WORDS))
        found = tries.decode(signed(bytes(raw)) if draw.random() < 0.8 else bytes(raw))
        told.add("none" if found is None else found.problem.partition(":")[0] or "counts")
        if found is not None:
            assert len(found.records) <= tries.RECORDS_MAX
            assert all(1 <= count <= tries.COUNT_MAX for _, count in found.records)
            found.enter(A)
            assert tries.decode(found.encode()).records == found.records
    assert told == {"none", "counts", "damaged", "damaged (CRC)"}


def test_each_flipped_bit_is_seen():
    whole = sector(A, B, A)
    for bit in range(8 * len(tries.MAGIC), 8 * tries.SIZE):
        raw = bytearray(whole)
        raw[bit // 8] ^= 1 << bit % 8
        found = tries.decode(raw)
        assert (found.records, found.problem) == ([], "damaged (CRC)")
