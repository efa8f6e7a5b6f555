"""LZ4's legacy frame, as the lab reads kernels in it. Whole kernels: host-tests/pvdump/arm."""

import struct

import pytest

from lab import LabError, lz4

# Blocks, and what they hold.
BLOCKS = {
    b"\x50hello": b"hello",
    b"\x00": b"",
    b"\xf0\x05" + b"x" * 20: b"x" * 20,
    b"\xf0\xff\x00" + b"y" * 270: b"y" * 270,
    b"\x32abc\x03\x00\x10d": b"abcabcabc" + b"d",
    b"\x1fa\x01\x00\xff\x05\x10b": b"a" * 280 + b"b",
    b"\x44abcd\x02\x00\x00": b"abcdcdcdcdcd",
}


def frame(*blocks: bytes) -> bytes:
    return lz4.MAGIC + b"".join(struct.pack("<I", len(block)) + block for block in blocks)


@pytest.mark.parametrize("block", BLOCKS)
def test_a_block_holds_what_the_format_says(block: bytes) -> None:
    assert lz4.decompress(frame(block)) == BLOCKS[block]


def test_blocks_follow_each_other_and_the_size_behind_them_is_left() -> None:
    assert lz4.decompress(frame(*BLOCKS) + b"\xff\xff\xff\x03") == b"".join(BLOCKS.values())


@pytest.mark.parametrize("block", [b"\x10a\x02\x00", b"\x10a\x00\x00", b"\xf0", b"\x10a\x01"])
def test_a_damaged_block_is_refused(block: bytes) -> None:
    with pytest.raises(LabError, match="the block at byte 8 is damaged"):
        lz4.decompress(frame(block))
