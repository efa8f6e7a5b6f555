"""The cost of one request, in lines of Python: in proportion to the request, within quotas.

A guest within its quotas could otherwise keep the server from all other guests. The limits are per
path, child or watch; they are broad, but far below what grows with a product of two of these.
"""

import sys

import pytest
from xenstored.clients import HOME, Client, guests_store

from pvdump.xenstored.domain import DOM0
from pvdump.xenstored.outgoing import EVENTS_HELD, PACKET_COST
from xenpv import abi
from xenpv.xenstore.wire import Packet

LEVELS = 990  # of the 1000 nodes of a guest
WATCHES = 128
EVENTS = EVENTS_HELD // PACKET_COST  # that can wait for one client
A_PATH = 150  # lines
AN_EVENT = 60


def lines_of(work, *args):
    """How many lines of Python a call executes."""
    count = 0

    def trace(frame, event, argument):
        nonlocal count
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work(*args)
    finally:
        sys.settrace(before)
    return count


def chain(levels):
    """The paths of a chain of nodes, the top one first."""
    return ["data" + "/a" * level for level in range(1, levels + 1)]


@pytest.fixture
def server():
    return guests_store(quotas={"outstanding": 0})


@pytest.fixture
def guest(server):
    return Client(server)


def commit(guest, paths):
    """The lines of the commit of a transaction in which paths were written."""
    number = guest.start()
    for path in paths:
        assert guest.write(path, "", number) == b"OK\0"
    guest.events_since()
    return ask(guest, abi.XS_TRANSACTION_END, b"T\0", number)


def ask(client, kind, payload, tx_id=0):
    """The lines of a request; its reply and events are taken afterwards."""
    lines = lines_of(client.connection.receive, Packet(kind, 1, tx_id, payload).encode())
    client.events_since()
    return lines


def test_a_commit_of_a_deep_chain_without_watches(guest):
    assert commit(guest, chain(LEVELS)) < A_PATH * LEVELS


def test_a_commit_of_a_deep_chain_with_all_watches_above_it(guest):
    for number in range(WATCHES):
        guest.watch("data", str(number))
    assert commit(guest, chain(LEVELS)) < A_PATH * LEVELS + AN_EVENT * EVENTS


def test_a_commit_of_a_deep_chain_with_a_watch_on_every_eighth_level(guest):
    for path in chain(LEVELS)[:: LEVELS // WATCHES + 1]:
        guest.watch(path)
    assert commit(guest, chain(LEVELS)) < A_PATH * LEVELS + AN_EVENT * EVENTS


def test_a_commit_of_a_deep_chain_with_watches_that_reach_few_levels(guest):
    for number in range(WATCHES):
        guest.watch("data", str(number), depth=number % 3)
    assert commit(guest, chain(LEVELS)) < A_PATH * LEVELS + AN_EVENT * 3 * WATCHES


def test_a_commit_of_many_nodes_with_watches_of_many_guests_that_may_not_read(server, guest):
    others = [Client(server, domid) for domid in range(2, 12)]
    for other in others:
        for number in range(WATCHES):
            other.watch(f"{HOME}/data", str(number))
    lines = commit(guest, chain(LEVELS))
    assert lines < (A_PATH + 20 * len(others)) * LEVELS
    assert all(len(other.events_since()) == WATCHES for other in others)  # as they were set


def test_a_write_of_a_deep_node(guest):
    commit(guest, chain(LEVELS))
    assert ask(guest, abi.XS_WRITE, chain(LEVELS)[-1].encode() + b"\0x") < A_PATH * LEVELS


def test_removal_of_a_deep_chain_with_all_watches_above_it(guest):
    commit(guest, chain(LEVELS))
    for number in range(WATCHES):
        guest.watch("data", str(number))
    guest.events_since()
    assert ask(guest, abi.XS_RM, b"data/a\0") < A_PATH * LEVELS + AN_EVENT * WATCHES


def test_release_of_a_domain_with_a_deep_chain_and_all_watches(server, guest):
    commit(guest, chain(LEVELS))
    for number in range(WATCHES):
        guest.watch("data", str(number))
    assert lines_of(server.release, 1) < A_PATH * (LEVELS + WATCHES)


def test_change_of_permissions_of_a_node_with_all_watches(guest):
    for number in range(WATCHES):
        guest.watch("data", str(number))
    assert ask(guest, abi.XS_SET_PERMS, b"data\0n1\0r2\0") < A_PATH + AN_EVENT * WATCHES


def test_watch_of_a_deep_path(guest):
    assert ask(guest, abi.XS_WATCH, chain(LEVELS)[-1].encode() + b"\0t\0") < 2 * A_PATH


@pytest.mark.parametrize("in_transaction", [False, True])
def test_part_of_a_large_directory_does_not_cost_the_whole(server, in_transaction):
    dom0 = Client(server, DOM0)
    for number in range(5000):
        server.write(f"/many/{number}", "")
    number = dom0.start() if in_transaction else 0
    first = dom0.ask(abi.XS_DIRECTORY_PART, b"/many\x000\0", number)
    payload = b"/many\0%d\0" % len(first)
    assert ask(dom0, abi.XS_DIRECTORY_PART, payload, number) < 2 * A_PATH


def test_end_of_a_client_with_many_watches_of_one_path(server):
    dom0 = Client(server, DOM0)
    for number in range(2000):
        dom0.watch("/a", str(number))
    assert lines_of(server.disconnect, dom0.connection) < 30 * 2000
