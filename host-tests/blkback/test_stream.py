"""Every kind of request in one ring, by seed: each is answered, and what a flush covers lasts."""

import pytest
from blkback.stream import Stream


@pytest.mark.fuzz("block-stream")
def test_whatever_stands_before_a_flush_in_the_ring_is_kept_by_it(fuzz):
    for seed in fuzz.seeds(30):
        Stream(seed).run(150)
