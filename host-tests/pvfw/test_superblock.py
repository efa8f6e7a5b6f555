"""The superblock: round trip, and every way in which a disk is not a target."""

import struct
import zlib

import pytest

from pvfw import superblock
from pvfw.errors import TargetRefused

SIZE = 64 << 20
UUID = bytes(range(16))


def reseal(raw):
    struct.pack_into("<I", raw, 508, zlib.crc32(raw[:508]))
    return raw


def test_a_superblock_comes_back_as_it_was_written():
    block = superblock.Superblock(UUID, SIZE)
    block.state = superblock.PARTIAL
    block.dump_size, block.written = 40 << 20, 3 << 20
    block.started, block.ended = 1_700_000_000, 1_700_000_009
    block.crash_vcpu, block.release = 1, "6.1.0-44-cloud-amd64"
    block.reason = "write of sector 8 failed"
    block.collected = 1_700_000_100
    raw = block.encode()
    assert len(raw) == 512
    assert vars(superblock.decode(raw)) == vars(block)


def test_the_layout_is_the_documented_one():
    raw = superblock.Superblock(UUID, SIZE).encode()
    assert raw[:8] == b"PVDUMP\r\n"
    assert struct.unpack_from("<II", raw, 8) == (2, 1)
    assert raw[16:32] == UUID
    assert struct.unpack_from("<QQ", raw, 32) == (SIZE, 1 << 20)
    assert struct.unpack_from("<I", raw, 508)[0] == zlib.crc32(raw[:508])


def test_that_a_dump_was_collected_stands_where_there_were_zeros():
    block = superblock.Superblock(UUID, SIZE)
    before = block.encode()
    block.collected = 1_700_000_100
    raw = block.encode()
    assert struct.unpack_from("<Q", raw, 340) == (1_700_000_100,)
    assert [i for i in range(508) if raw[i] != before[i]] == [340, 341, 342, 343]


@pytest.mark.parametrize("state", [superblock.COMPLETE, superblock.PARTIAL])
def test_collected_target_is_refused_until_it_is_made_ready(state):
    block = superblock.Superblock(UUID, SIZE)
    block.state, block.collected = state, 1_700_000_100
    found = superblock.decode(block.encode())
    assert "prepare --again" in superblock.refusal(found, SIZE, False, 4096)


@pytest.mark.parametrize("raw", [b"", bytes(512), b"PVDUMP\n\n" + bytes(504), b"\xff" * 512])
def test_a_disk_without_superblock_is_refused(raw):
    with pytest.raises(TargetRefused, match="pvdump prepare"):
        superblock.decode(raw)


@pytest.mark.parametrize("bit", range(0, 508 * 8, 61))
def test_any_changed_bit_is_noticed(bit):
    raw = bytearray(superblock.Superblock(UUID, SIZE).encode())
    raw[bit // 8] ^= 1 << bit % 8
    with pytest.raises(TargetRefused):
        superblock.decode(raw)


@pytest.mark.parametrize(
    ("offset", "fmt", "value", "message"),
    [
        (8, "<I", 3, "version 3"),
        (8, "<I", 1, "format 1"),
        (12, "<I", 9, "state 9"),
        (40, "<Q", 0, "data_offset 0"),
        (40, "<Q", 4097, "data_offset 4097"),
        (40, "<Q", SIZE * 2, "data_offset"),
        (48, "<Q", SIZE, "sizes contradict"),
        (56, "<Q", SIZE, "sizes contradict"),
        (356, "<I", 7, "format 7"),
        (32, "<Q", 1 << 63, "the superblock is damaged: size 9223372036854775808 is more than any"),
        (40, "<Q", (1 << 64) - 4096, "the superblock is damaged: data_offset 18446744073709547520"),
        (48, "<Q", (1 << 64) - 1, "the superblock is damaged: dump_size 18446744073709551615"),
        (56, "<Q", (1 << 64) - 1, "the superblock is damaged: written 18446744073709551615"),
    ],
)
def test_fields_that_cannot_be_are_refused(offset, fmt, value, message):
    raw = bytearray(superblock.Superblock(UUID, SIZE).encode())
    struct.pack_into(fmt, raw, offset, value)
    with pytest.raises(TargetRefused, match=message):
        superblock.decode(reseal(raw))


def test_texts_are_cut_to_their_fields_and_made_printable():
    block = superblock.Superblock(UUID, SIZE)
    block.reason = "x" * 500
    block.release = "6.1\x07"
    found = superblock.decode(block.encode())
    assert found.reason == "x" * 192
    assert found.release == "6.1?"
