"""The conformance suite against our own server: over a guest's ring, and over the unix socket.

The same cases run on a real Xen in host-tests/lab/test_conformance.py.
"""

import os

import pytest

from . import servers
from .deviations import DEVIATIONS, OURS, PAGE, SERVERS, expected, page
from .suite.all import CASES, DOM0, GUEST


@pytest.fixture(scope="module")
def ring():
    return servers.over_the_ring()


@pytest.fixture(scope="module")
def sock(tmp_path_factory):
    return servers.over_the_socket(tmp_path_factory.mktemp("store") / "socket")


@pytest.mark.parametrize("name", expected(OURS, GUEST))
def test_our_server_over_the_ring(ring, name):
    assert ring[name] == expected(OURS, GUEST)[name]


@pytest.mark.parametrize("name", expected(OURS, DOM0))
def test_our_server_over_the_socket(sock, name):
    assert sock[name] == expected(OURS, DOM0)[name]


@pytest.mark.parametrize("options", [{"piecemeal": True, "seed": 3}, {"start": (2**32 - 9, 77)}])
def test_our_server_shows_the_same_however_the_bytes_come(options):
    assert servers.over_the_ring(**options) == expected(OURS, GUEST)


def test_each_deviation_is_of_a_case_and_a_server_and_has_a_reason():
    wanted = {case.name: case.expected for case in CASES}
    for (server, name), (seen, why) in DEVIATIONS.items():
        assert server in SERVERS
        assert seen not in wanted[name].values(), f"{server}, {name}: as expected"
        assert why


def test_each_case_has_a_name_of_its_own():
    names = [case.name for case in CASES]
    assert sorted(names) == sorted(set(names))


def test_the_page_of_differences_is_up_to_date():
    if os.environ.get("PVDUMP_RENEW") == "1":
        PAGE.write_text(page(), encoding="utf-8")
    assert PAGE.read_text(encoding="utf-8") == page(), "run pytest with PVDUMP_RENEW=1"
