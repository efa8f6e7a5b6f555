"""The server's end of the ring and its requests against hostile guests; see hostile_guest.py.

An input that fails is put into host-tests/vectors/xs_server.yaml.
"""

import contextlib
import random
from collections import Counter
from pathlib import Path

import pytest
import yaml
from fixtures.hostileserver import Plan
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from xenstored.clients import Client, guests_store
from xenstored.hostile_guest import packet, play_requests, play_ring
from xenstored.test_model import PLACES, Interleaving

from pvdump.xenstored.domain import DOM0
from xenpv.errors import RingCorrupt

VECTORS = yaml.safe_load((Path(__file__).parents[1] / "vectors/xs_server.yaml").read_text())


def play_transactions(data):
    """Transactions of several domains, as test_model has them. Returns what was done."""
    plan, machine, done = Plan(data), Interleaving(), Counter()
    while not plan.over:
        number, domid = plan.byte() % 3, plan.choose((DOM0, DOM0, 1, 1, 2, 3))
        name = plan.choose(("read", "directory", "get_perms", "mkdir", "rm", "write", "set_perms"))
        operation = [name, plan.choose(PLACES)]
        if name == "write":
            operation.append(b"%d" % (plan.byte() % 3))
        if name == "set_perms":
            entry = ("nrwb"[plan.byte() % 4], plan.byte() % 3)
            operation.append((entry, ("nrwb"[plan.byte() % 4], plan.byte() % 3)))
        act = plan.choose(("start", "commit", "outside", *["inside"] * 5))
        if act == "start":
            machine.start(number=number, domid=domid)
        elif act == "commit":
            machine.commit(number=number)
        elif act == "inside":
            machine.inside(number=number, operation=tuple(operation))
        else:
            machine.outside(domid=domid, operation=tuple(operation))
        done[act] += 1
    machine.the_tree_is_the_model()
    done += machine.done
    return done


PLAYS = {"ring": play_ring, "requests": play_requests, "transactions": play_transactions}
FUZZ = settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))


@FUZZ
@given(st.binary(max_size=600))
def test_a_hostile_guest_on_the_ring_harms_only_itself_and_can_reconnect(data):
    play_ring(data)


@FUZZ
@given(st.binary(max_size=900))
def test_every_request_whatever_it_is_has_one_reply_and_leaves_the_tree_whole(data):
    play_requests(data)


@FUZZ
@given(st.binary(max_size=200))
def test_bytes_that_are_no_packets_are_refused_or_answered(data):
    server = guests_store()
    client = Client(server)
    with contextlib.suppress(RingCorrupt):
        client.connection.receive(data)
    server.disconnect(client.connection)
    assert Client(server, 0).write("/a") == b"OK\0"


@settings(max_examples=100, deadline=None)
@given(st.lists(st.binary(max_size=12), max_size=12), st.lists(st.integers(1, 40)))
def test_a_stream_gives_the_same_replies_however_it_is_cut(plans, cuts):
    def played(pieces):
        client = Client(guests_store())
        out = b""
        for piece in pieces:
            client.connection.receive(piece)
            while client.connection.pending():
                data = client.connection.take(100)
                client.connection.drop(len(data))
                client.connection.work()
                out += data
        return out

    stream = b"".join(packet(Plan(plan)).encode() for plan in plans)
    pieces, at = [], 0
    for size in cuts:
        pieces.append(stream[at : at + size])
        at += size
    assert played([*pieces, stream[at:]]) == played([stream])


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_what_was_found_once_is_not_found_again(vector):
    PLAYS[vector["play"]](bytes.fromhex(vector["bytes"]))


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.fuzz(f"xenstored-{name}")) for name in PLAYS]
)
def test_any_bytes_leave_the_server_whole(name, fuzz):
    for seed in fuzz.seeds(100):
        data = random.Random(seed).randbytes(600)
        print(f"bytes {data.hex()}")
        fuzz.done += PLAYS[name](data)
