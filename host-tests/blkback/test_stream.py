"""Every kind of request in one ring, by seed: each is answered, and what a flush covers lasts."""

import pytest
from blkback.stream import Stream
from blkback.test_both_ends import SEEDS


@pytest.mark.parametrize("seed", SEEDS)
def test_whatever_stands_before_a_flush_in_the_ring_is_kept_by_it(seed):
    Stream(seed).run(150)
