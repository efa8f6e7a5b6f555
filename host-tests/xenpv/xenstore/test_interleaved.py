"""The xenstore rings with both ends at work at the same time, in every order of their accesses.

Neither end may sleep for ever while there is work, and the bytes come as they were sent; see
host-tests/interleaved.py for what a processor may do meanwhile.
"""

import random

import pytest
from fixtures import interleaved
from hypothesis import given, settings
from hypothesis import strategies as st

SIZE = 4
REQUEST, REPLY = 0, 16


def ring_at(kind, addr, name):
    return kind(addr, SIZE, addr + SIZE + 4, addr + SIZE, name)


def tell(*rings):
    for ring in rings:
        yield from ring.told()
    yield interleaved.TELL


def flush(*rings):
    if any(ring.due for ring in rings):
        yield from tell(*rings)


def client(requests, replies, data, piece):
    """Sends all and wants all back, in the steps of xenstore.Xenstore and ring.RingTransport."""
    out, got = data, b""
    yield from tell(requests, replies)
    while len(got) < len(data):
        moved = False
        while True:
            raw = yield from replies.read(piece)
            if not raw:
                break
            got += raw
            moved = True
        while out:
            count = yield from requests.write(out)
            if count == 0:
                break
            out = out[count:]
            moved = True
        yield from flush(requests, replies)
        if not moved:
            yield interleaved.SLEEP
    assert got == data, "the bytes are others"


def server(requests, replies, count, piece, rule):
    """Gives back what it gets, and sleeps whenever it can do nothing.

    rule: "sparing" tells by `due`, "telling" after each move, "busy" reads nothing while replies
    wait for room.
    """
    held, given = b"", 0
    yield interleaved.SLEEP
    while given < count:
        moved = False
        if not (held and rule == "busy"):
            raw = yield from requests.read(piece)
            held += raw
            moved = bool(raw)
        done = yield from replies.write(held)
        held = held[done:]
        given += done
        moved = moved or done > 0
        if moved and rule == "telling":
            yield from tell(requests, replies)
        else:
            yield from flush(requests, replies)
        if not moved:
            yield interleaved.SLEEP


def echo(choices, count=11, start=0, piece=3, rule="sparing", kind=interleaved.ByteRing):
    """Run both ends on one memory; choices: who acts next, see interleaved.run()."""
    memory = bytearray(32)
    for addr in (REQUEST, REPLY):
        for index in (SIZE, SIZE + 4):
            memory[addr + index : addr + index + 4] = start.to_bytes(4, "little")
    data = bytes(range(1, count + 1))
    near = [ring_at(kind, addr, "near") for addr in (REQUEST, REPLY)]
    far = [ring_at(kind, addr, "far") for addr in (REQUEST, REPLY)]
    cpus = [
        interleaved.Cpu(memory, client(*near, data, piece)),
        interleaved.Cpu(memory, server(*far, count, piece, rule)),
    ]
    cpus[0].peer, cpus[1].peer = cpus[1], cpus[0]
    interleaved.run(cpus, choices)
    return cpus


RULES = pytest.mark.parametrize("rule", ["sparing", "telling", "busy"])


@RULES
@settings(max_examples=200, deadline=None)
@given(
    choices=st.binary(max_size=600),
    start=st.sampled_from([0, 3, 0xFFFFFFFE]),
    piece=st.integers(1, SIZE),
)
def test_no_end_of_a_ring_sleeps_for_ever_and_no_byte_is_lost(rule, choices, start, piece):
    echo(choices, start=start, piece=piece, rule=rule)


@RULES
@pytest.mark.parametrize("first", range(3))
def test_one_end_may_be_held_up_anywhere_for_any_time(rule, first):
    # One end goes on for so long, then the other, then by turns: every place and every length.
    for before in range(0, 120, 4):
        for meanwhile in range(1, 120, 5):
            echo(bytes([first]) * before + bytes([first + 1]) * meanwhile, rule=rule)


def orders(seeds):
    """Orders drawn by seed: even ones, ones of long turns, ones where stores come late."""
    for seed in seeds:
        draw = random.Random(seed)
        even = draw.randbytes(500)
        turns = b"".join(bytes([draw.randrange(4)]) * draw.randrange(1, 30) for _ in range(40))
        late = bytes(draw.choice((0, 0, 0, 1)) for _ in range(500))
        for choices in (even, turns, late):
            yield {
                "choices": choices,
                "start": draw.choice((0, 1, 2, 3, 0xFFFFFFFE)),
                "piece": draw.randint(1, SIZE),
                "count": draw.randint(5, 20),
            }


@RULES
@pytest.mark.fuzz("xenstore-notifications")
def test_nor_in_orders_drawn_by_seed(rule, fuzz):
    for order in orders(fuzz.seeds(150)):
        echo(rule=rule, **order)


def echo_in_many_orders(kind):
    for order in orders(range(500)):
        echo(kind=kind, **order)


@pytest.mark.parametrize("method", ["write", "read"])
def test_the_model_finds_a_barrier_that_is_missing(method):
    # An index is published; then it is asked where the other end is, which asks the same.
    careless = interleaved.interleaved(interleaved.bytering.ByteRing, without=("mb", method))
    with pytest.raises(AssertionError, match="everyone sleeps"):
        echo_in_many_orders(careless)


def test_the_model_finds_an_end_that_tells_too_little():
    class Silent(interleaved.ByteRing):
        def read(self, limit):
            raw = yield from super().read(limit)
            self.due = False
            return raw

    with pytest.raises(AssertionError, match="everyone sleeps"):
        echo_in_many_orders(Silent)


def test_fewer_tells_than_moves_are_enough():
    cpus = echo(b"", count=40)
    assert sum(cpu.tells for cpu in cpus) < 40
