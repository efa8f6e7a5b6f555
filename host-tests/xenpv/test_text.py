"""Text of a peer or a person: numbers are plain ASCII, and a terminal gets printable characters."""

import pytest

from xenpv.text import decimal, hexadecimal, printable

U64 = (1 << 64) - 1
NO_DECIMALS = [
    *("", "+1", "-1", " 1", "1 ", "1_0", "1.0", "1e3", "0x1", "1\0", "1\n", "one"),
    *("01", "00"),
]


@pytest.mark.parametrize("number", [0, 7, 10, 51712, 1 << 32, U64])
def test_a_number_in_plain_digits_is_read_from_text_and_from_bytes(number):
    assert decimal(str(number), 0, U64) == number
    assert decimal(str(number).encode(), 0, U64) == number


@pytest.mark.parametrize("text", NO_DECIMALS)
def test_what_int_would_read_otherwise_is_no_decimal(text):
    assert decimal(text, 0, U64) is None
    assert decimal(text.encode(), 0, U64) is None


@pytest.mark.parametrize("text", ["\xb2", "1\xb2", "\u0661", "\u0967", "\uff11", "\udcb2"])
def test_digits_of_other_alphabets_are_no_decimal(text):
    assert decimal(text, 0, U64) is None
    assert hexadecimal(text, 0, U64) is None


def test_bytes_beyond_ascii_are_no_decimal():
    assert decimal(b"\xb2", 0, U64) is None
    assert decimal(bytearray(b"1\xff"), 0, U64) is None


def test_a_number_out_of_its_bounds_is_none():
    assert [decimal(str(n), 2, 4) for n in range(1, 6)] == [None, 2, 3, 4, None]


def test_a_text_of_any_length_is_looked_at_no_further_than_a_u64_has_digits():
    assert decimal("1" * 21, 0, 10**30) is None
    assert decimal(b"1" * 100000, 0, 10**30) is None


@pytest.mark.parametrize(("text", "number"), [("0", 0), ("00ff", 255), ("DeadBeef", 0xDEADBEEF)])
def test_hexadecimal_digits_of_either_case_are_read(text, number):
    assert hexadecimal(text, 0, U64) == number


@pytest.mark.parametrize("text", ["", "0x1", "g", "-1", "1_0", "1" * 17])
def test_what_is_no_hexadecimal_number_is_none(text):
    assert hexadecimal(text, 0, U64) is None


def test_each_byte_that_is_not_printable_is_shown_as_another_character():
    assert printable(b"a b~\x1b[2J\x7f\x80\0\n") == "a b~?[2J????"
    assert printable(memoryview(b"a\nb"), " ") == "a b"
