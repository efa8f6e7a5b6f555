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
    limits.agree_before({**BEFORE, **offered})
    assert limits.pages == pages


def agreed(offered):
    """Agree on the limits of a front end of 4 pages, 512 requests, 256 segments."""
    limits = Limits(4, 512, 256)
    limits.agree_before({**BEFORE, **{key: offered[key] for key in offered if key in BEFORE}})
    connected = {key: offered[key] for key in offered if key in PROPERTIES}
    limits.agree_connected({**PROPERTIES, **connected})
    return limits


@pytest.mark.parametrize(
    ("offered", "segments"),
    [
        ({}, 11),
        ({"feature-max-indirect-segments": 8}, 11),
        ({"feature-max-indirect-segments": 32}, 32),
        ({"feature-max-indirect-segments": 4096}, 256),
        ({"max-request-segments": 5}, 5),
        ({"max-request-segments": 255}, 11),
        ({"max-request-segments": 128, "feature-max-indirect-segments": 256}, 128),
        ({"max-request-size": 16384}, 4),
        ({"max-request-size": 4096}, 1),
        ({"max-request-size": 16383}, 3),
        ({"max-request-size": 16384, "feature-max-indirect-segments": 256}, 4),
        ({"max-request-size": 16384, "max-request-segments": 3}, 3),
        ({"max-request-size": 8192, "max-request-segments": 3}, 2),
    ],
)
def test_a_request_has_as_many_segments_as_both_sides_can(offered, segments):
    limits = agreed(offered)
    assert limits.segments == segments
    assert limits.sectors() == 8 * segments


@pytest.mark.parametrize(("offered", "requests"), [(0, 512), (64, 64), (1, 1), (1000, 512)])
def test_as_many_requests_are_in_flight_as_both_sides_can(offered, requests):
    assert agreed({"max-requests": offered}).requests == requests


def test_a_reduced_limit_is_noted_with_both_values():
    offered = {"max-requests": 64, "max-request-segments": 128, "max-request-size": 65536}
    assert agreed(offered).notes == [
        "pages 4 reduced to 1",
        "max-requests 512 reduced to 64",
        "max-request-segments 256 reduced to 128",
        "max-request-size 1048576 reduced to 65536",
        "segments 16 reduced to 11",
    ]


def test_the_maxima_that_we_write_are_within_the_backend_s():
    limits = Limits(4, 512, 256)
    limits.agree_before({**BEFORE, "max-requests": 64, "max-request-size": 65536})
    assert limits.maxima() == {
        "max-requests": 64,
        "max-request-segments": 16,
        "max-request-size": 65536,
    }


def test_the_keys_of_the_maxima_are_the_same_at_both_ends():
    keys = {key for key, *_ in negotiate.MAXIMA}
    assert set(Limits(1, 1, 1).maxima()) == keys
    assert keys <= set(BEFORE)


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
