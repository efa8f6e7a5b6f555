"""Negotiation of a block device: every key optional, the lesser limit counts."""

import pytest

from xenpv.block import negotiate
from xenpv.block.negotiate import Limits, ring_keys

BEFORE = {key: default for key, default, *_ in negotiate.BEFORE}
PROPERTIES = {key: default for key, default, *_ in negotiate.PROPERTIES}


@pytest.mark.parametrize(
    ("offered", "pages"),
    [
        ({}, 1),
        ({"max-ring-page-order": 0}, 1),
        ({"max-ring-page-order": 1}, 2),
        ({"max-ring-page-order": 4}, 4),
        ({"max-ring-page-order": 1 << 31}, 4),
        ({"max-ring-pages": 2}, 2),
        ({"max-ring-pages": 3}, 2),
        ({"max-ring-pages": 64}, 4),
        ({"max-ring-page-order": 0, "max-ring-pages": 4}, 4),
    ],
)
def test_the_ring_has_as_many_pages_as_both_sides_can(offered, pages):
    limits = Limits(4, 512, 256)
    limits.agree_ring({**BEFORE, **offered})
    assert limits.pages == pages


@pytest.mark.parametrize(
    ("offered", "segments"),
    [
        ({}, 11),
        ({"feature-max-indirect-segments": 8}, 11),
        ({"feature-max-indirect-segments": 32}, 32),
        ({"feature-max-indirect-segments": 4096}, 256),
        ({"max-request-segments": 5}, 5),
        ({"max-request-size": 16384}, 4),
        ({"max-request-size": 100}, 1),
        ({"max-request-size": 16384, "feature-max-indirect-segments": 256}, 4),
    ],
)
def test_a_request_has_as_many_segments_as_both_sides_can(offered, segments):
    limits = Limits(4, 512, 256)
    limits.agree_requests({**PROPERTIES, **offered})
    assert limits.segments == segments
    assert limits.sectors() == 8 * segments


def test_what_was_reduced_is_noted_with_both_values():
    limits = Limits(4, 512, 256)
    limits.agree_ring({**BEFORE, "max-requests": 64})
    limits.agree_requests(PROPERTIES)
    assert limits.notes == [
        "pages 4 reduced to 1",
        "requests 512 reduced to 64",
        "segments 256 reduced to 11",
    ]


@pytest.mark.parametrize(
    ("offered", "refs", "keys"),
    [
        ({}, [9], [("ring-ref", 9)]),
        ({"max-ring-page-order": 4}, [9], [("ring-ref", 9)]),
        (
            {"max-ring-page-order": 4},
            [9, 8],
            [("ring-page-order", 1), ("ring-ref0", 9), ("ring-ref1", 8)],
        ),
        (
            {"max-ring-pages": 4},
            [9, 8],
            [("num-ring-pages", 2), ("ring-ref0", 9), ("ring-ref1", 8)],
        ),
    ],
)
def test_the_ring_is_named_in_the_scheme_that_the_backend_knows(offered, refs, keys):
    assert ring_keys({**BEFORE, **offered}, refs) == keys
