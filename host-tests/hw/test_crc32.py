"""boot/hw/crc32.c: zlib's CRC-32."""

import random
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

import hw

CONTENT = random.Random(1).randbytes(5000)


@pytest.mark.parametrize("length", range(101))
def test_it_is_zlib_s_for_every_short_length_and_alignment(length):
    for start in range(8):
        data = memoryview(CONTENT)[start : start + length]
        assert hw.crc32(data) == zlib.crc32(data)


@given(cut=st.integers(0, 5000), crc=st.integers(0, 2**32 - 1))
def test_it_goes_on_from_the_crc_of_what_stands_before(cut, crc):
    first, second = CONTENT[:cut], CONTENT[cut:]
    assert hw.crc32(second, hw.crc32(first)) == zlib.crc32(CONTENT)
    assert hw.crc32(first, crc) == zlib.crc32(first, crc)


@pytest.mark.parametrize("crc", [-1, 2**32])
def test_a_crc_of_more_than_32_bits_is_an_overflow_error(crc):
    with pytest.raises(OverflowError):
        hw.crc32(b"", crc)


def test_a_text_is_a_type_error():
    with pytest.raises(TypeError):
        hw.crc32("text")
