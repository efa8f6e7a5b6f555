"""The conformance suite against our own server: over a guest's ring, and over the unix socket.

The same cases run on a real Xen in host-tests/lab/test_conformance.py.
"""

import pytest

from . import servers
from .deviations import DEVIATIONS
from .suite.all import CASES, DOM0, GUEST


def expected(server, role):
    """What each case of a role is to see on a server."""
    wanted = {case.name: case.expected[role] for case in CASES if role in case.expected}
    for (where, name), (seen, _) in DEVIATIONS.items():
        if where == server:
            wanted[name] = seen
    return wanted


@pytest.fixture(scope="module")
def ring():
    return servers.over_the_ring()


@pytest.fixture(scope="module")
def sock(tmp_path_factory):
    return servers.over_the_socket(tmp_path_factory.mktemp("store") / "socket")


@pytest.mark.parametrize("name", expected("ours", GUEST))
def test_our_server_over_the_ring(ring, name):
    assert ring[name] == expected("ours", GUEST)[name]


@pytest.mark.parametrize("name", expected("ours", DOM0))
def test_our_server_over_the_socket(sock, name):
    assert sock[name] == expected("ours", DOM0)[name]
