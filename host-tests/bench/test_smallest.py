"""The least of a few sizes that works is found by few tries."""

import pytest

from bench.smallest import SIZES, THEIR_SIZES, least
from tools import Trouble


@pytest.mark.parametrize("sizes", [SIZES, THEIR_SIZES])
def test_the_least_size_that_works_is_found_wherever_it_is(sizes):
    for wanted in sizes:
        assert least(sizes, lambda size, wanted=wanted: size >= wanted) == wanted


@pytest.mark.parametrize("wanted", THEIR_SIZES)
def test_three_tries_suffice_for_seven_sizes(wanted):
    tried = []

    def works(size):
        tried.append(size)
        return size >= wanted

    least(THEIR_SIZES, works)
    assert len(tried) == len(set(tried)) == 3


def test_sizes_of_which_none_works_are_refused():
    with pytest.raises(Trouble, match="128 MiB do not suffice"):
        least(THEIR_SIZES, lambda _: False)
