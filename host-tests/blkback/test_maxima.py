"""The maxima of requests that both ends publish: the lesser one of each counts."""

import pytest
from blkback.front import ERROR, FLUSH, OKAY, PAGE, WRITE, Xen


@pytest.fixture
def front():
    return Xen().fronts[0]


def test_our_own_are_there_before_a_front_end_makes_its_ring(front):
    keys = ("max-requests", "max-request-segments", "max-request-size")
    assert [front.back(key) for key in keys] == ["512", "256", "1048576"]


@pytest.mark.parametrize("most", [1, 3, 32])
def test_no_more_requests_are_taken_than_the_front_end_says_that_it_has(front, most):
    front.write("max-requests", most)
    front.connect(4)
    instance, taken = front.device.instance, []
    fetch = instance._fetch
    instance._fetch = lambda: (fetch(), taken.append(len(instance._jobs)))
    data = front.data(bytes(PAGE))
    for i in range(60):
        front.put(WRITE, 16 * i, data)
    assert [status for _, _, status in front.kick()] == [OKAY] * 60
    assert max(taken) == most


@pytest.mark.parametrize("indirect", [False, True])
def test_a_request_of_more_segments_than_agreed_is_refused(front, indirect):
    front.write("max-request-segments", 4)
    front.connect()
    assert front.status(WRITE, 0, front.data(bytes(4 * PAGE)), indirect=indirect) == OKAY
    assert front.status(WRITE, 0, front.data(bytes(5 * PAGE)), indirect=indirect) == ERROR


def test_a_request_of_more_bytes_than_agreed_is_refused(front):
    front.write("max-request-size", 2 * PAGE)
    front.connect()
    assert front.status(WRITE, 0, front.data(bytes(2 * PAGE))) == OKAY
    assert front.status(WRITE, 0, front.data(bytes(3 * PAGE))) == ERROR
    first = front.data(bytes(PAGE))[0][0]
    assert front.status(WRITE, 0, [(first, i, i) for i in range(8)]) == OKAY


def test_one_that_asks_for_more_than_ours_gets_ours(front):
    front.write("max-request-segments", 1000)
    front.connect()
    assert front.status(WRITE, 0, front.data(bytes(256 * PAGE)), indirect=True) == OKAY
    assert front.xen.back.log == []


def test_what_was_reduced_is_logged_with_both_values(front):
    front.write("max-requests", 64)
    front.write("max-request-size", 32 * PAGE)
    front.connect()
    assert front.xen.back.log == [
        f"pvdump_vbd {front.device.name}: {front.node}: max-requests 512 reduced to 64, "
        "max-request-size 1048576 reduced to 131072"
    ]


def test_a_front_end_that_says_none_is_limited_by_ours_alone(front):
    front.connect()
    assert front.status(FLUSH) == OKAY
    assert front.xen.back.log == []
